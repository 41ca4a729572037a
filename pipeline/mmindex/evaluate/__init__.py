"""Recall: how well a corpus finds itself, and how much of that the index keeps."""
