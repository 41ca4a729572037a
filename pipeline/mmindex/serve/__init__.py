"""The search service: pages and an HTTP API for one published store."""
