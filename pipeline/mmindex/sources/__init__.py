"""The kinds of source: one module lists one kind's images and captions."""
