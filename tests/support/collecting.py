"""Run gc in a store; by default, it keeps only the published version."""

from mmindex.store import versions
from mmindex.upkeep.gc import Retention, collect
from support.kept import NOW

STRICT = Retention(keep_versions=1, keep_days=0)


def run(root, retention=STRICT, now=NOW, spare=lambda _path: False, **options):
    return collect(versions.open_layout(root), retention, now=now, spare=spare, **options)


def numbers(root):
    return versions.list_versions(versions.open_layout(root))
