"""Sources: what they list, read in place or fetched, as tables of images and captions."""
