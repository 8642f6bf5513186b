"""Perplexity (Eq. 6): which tokens are scored, their negative log-likelihood, and the error bar."""
