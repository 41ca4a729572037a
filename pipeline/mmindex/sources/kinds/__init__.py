"""The built-in kinds of source. A module here is a kind: it defines ``KIND``, its description.

The module's name is the kind's, with ``_`` for ``-``. A module is imported only when its kind is
used or listed.
"""

from __future__ import annotations

import pkgutil


def built_in() -> tuple[str, ...]:
    """The names of the built-in kinds, sorted; imports none of them."""
    names = (module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(names))
