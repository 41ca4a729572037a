"""mmindex: offline batch indexing and search over image corpora."""

__version__ = "0.1.0"
