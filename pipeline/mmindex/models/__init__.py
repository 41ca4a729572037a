"""Models: selection, files, and encoding of pixels and texts as vectors."""
