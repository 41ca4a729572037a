"""Adapt a model to captioned images that are already encoded, with two affine maps."""
