"""Fetch over HTTP: safely, politely, resumably."""
