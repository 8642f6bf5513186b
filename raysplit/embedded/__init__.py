"""The embedded model: weights, model card and the script that trains it."""
