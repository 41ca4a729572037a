"""Vectors with the shape of CLIP embeddings, as in the benchmarks."""

from benchkit.clustered import clustered

__all__ = ["clustered"]
