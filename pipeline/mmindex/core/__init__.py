"""The base of all other packages; nothing here depends on a stage."""
