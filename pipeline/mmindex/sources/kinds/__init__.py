"""The built-in kinds of source. A module here is a kind: it defines ``KIND``, its description.

The module's name is the kind's, with ``_`` for ``-``. A module is imported only when its kind is
used or listed.
"""
