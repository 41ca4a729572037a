"""Fetching over HTTP: safely, politely, resumably."""
