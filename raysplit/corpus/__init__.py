"""Text in, scored token sequences out."""
