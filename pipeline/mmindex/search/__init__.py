"""Answering queries from a published version."""
