"""Special model names, in a separate module so that `mmindex status` starts fast."""

from __future__ import annotations

from typing import Final

DEFAULT_MODEL: Final = "ViT-B-32"
DEFAULT_PRETRAINED: Final = "laion2b_s34b_b79k"
# The models included in mmindex: for drawn scenes, and for photographs.
EMBEDDED: Final = "embedded"
PHOTOS: Final = "photos"
# Of vectors from files, where nobody says which model made them.
UNKNOWN: Final = "unknown"
