"""The Python API: open a store, search it, take its vectors out, build one,
adapt its model to captions.

Everything here is for programs: results are returned, errors are raised
(:mod:`mmindex.core.errors`), log events go to ``logging`` and nothing is printed. The commands use
the same functions.
"""

from mmindex.api.adapting import adapt
from mmindex.api.building import build
from mmindex.api.hits import Hit, Hits, Side
from mmindex.api.index import Index, open  # mmindex.open, as gzip.open

__all__ = ["Hit", "Hits", "Index", "Side", "adapt", "build", "open"]
