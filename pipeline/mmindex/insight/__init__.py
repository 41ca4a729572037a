"""What embeddings can tell beside search: pairs, labels, duplicates, reasons, descriptions."""
