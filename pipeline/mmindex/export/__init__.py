"""A version's images, captions and vectors in files that other tools read."""
