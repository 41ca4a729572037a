"""The Python API: open a store, search it, export its vectors, build a store, adapt its model.

Functions return results and raise errors (:mod:`mmindex.core.errors`). Log events go to
``logging``, and nothing is printed. The commands use the same functions.
"""

from mmindex.api.adapting import adapt
from mmindex.api.building import build
from mmindex.api.hits import Hit, Hits, Recommended, Side
from mmindex.api.index import Index, open  # mmindex.open, like gzip.open

__all__ = ["Hit", "Hits", "Index", "Recommended", "Side", "adapt", "build", "open"]
