"""Pages that open from disk: gallery, duplicates, evaluation report.

One design for all: ``page.html`` is the frame, ``parts.html`` has cards and names, ``charts.html``
charts, ``controls.html`` forms; ``base.css`` has the colours. A page is one file with its styles
inside, or, for a server, links to them.
"""
