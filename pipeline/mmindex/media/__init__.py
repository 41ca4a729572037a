"""An image's bytes and its pixels: where they lie, what they are, how to open them safely."""
