"""The problems that a full check finds in a store."""

from mmindex.upkeep.check import check


def problems(root, **options):
    return check(root, full=True, **options).problems
