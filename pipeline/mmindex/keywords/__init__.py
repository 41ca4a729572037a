"""The keyword index: words of captions, file names and metadata, and the images that have them."""
