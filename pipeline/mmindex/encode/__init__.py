"""From files and texts to unit vectors in Parquet shards."""
