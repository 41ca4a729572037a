"""The two sides of a corpus, in a separate module so that ``status`` starts fast."""

from enum import StrEnum


class Modality(StrEnum):
    """The two sides of a corpus; also the names of the embedding tables and indexes."""

    IMAGE = "image"
    TEXT = "text"
