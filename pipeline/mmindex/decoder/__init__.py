"""A small text decoder on the frozen image tower: captions, answers and prompts."""
