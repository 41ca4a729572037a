"""The kinds of source: one module per kind reads its images and captions."""
