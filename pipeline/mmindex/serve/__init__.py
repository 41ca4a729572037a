"""The search service: pages for people and an HTTP API for programs, over one published store."""
