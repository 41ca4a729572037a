"""Recall of the model and of the index."""
