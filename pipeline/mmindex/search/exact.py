"""Exact search, as the stages below ``index`` use it (the index itself is tuned against it)."""

from mmindex.index.exact import exact_search

__all__ = ["exact_search"]
