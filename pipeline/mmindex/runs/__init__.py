"""The whole build: draft, stages, publish once; and what it would do."""
