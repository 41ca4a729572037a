"""Uses of embeddings other than search: match, classify, dedup, explain, caption."""
