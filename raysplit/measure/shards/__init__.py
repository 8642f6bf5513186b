"""The two halves of a split model as workers: plain classes, and thin Ray actors round them."""
