"""Vectors shaped like CLIP embeddings: those of the benchmarks."""

from benchkit.clustered import clustered

__all__ = ["clustered"]
