"""Planning, building and tuning of the FAISS indexes."""
