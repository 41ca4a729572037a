"""Adapts a model to captioned pictures that are already encoded: two affine maps behind it."""
