"""Search in a published version."""
