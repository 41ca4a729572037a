"""Encode files and texts as unit vectors in Parquet shards."""
