"""Locate image files, identify their format, and open them safely."""
