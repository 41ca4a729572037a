"""Export a version's images, captions and vectors to files for other tools."""
