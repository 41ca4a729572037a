"""Which network is meant, its files, and how it turns pixels and texts into vectors."""
