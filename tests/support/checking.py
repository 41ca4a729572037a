"""What a full check says of a store."""

from mmindex.store import versions
from mmindex.upkeep.check import check


def problems(root, **options):
    return check(versions.open_layout(root), full=True, **options).problems
