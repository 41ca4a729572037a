"""Adapts a model to captioned images that are already encoded: two affine maps behind it."""
