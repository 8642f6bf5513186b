"""Perplexity (Eq. 6): the NLL of the scored tokens, and the estimate with its error bar."""
