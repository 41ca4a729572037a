"""The two sides of a corpus, in a module of its own: ``status`` must not pay for more."""

from enum import StrEnum


class Modality(StrEnum):
    """The two sides of a corpus; also the names of the embedding tables and indexes."""

    IMAGE = "image"
    TEXT = "text"
