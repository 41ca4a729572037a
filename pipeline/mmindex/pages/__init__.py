"""Pages that open from disk: gallery, duplicates, evaluation report."""
