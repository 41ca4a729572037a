"""HTML pages that open from disk: gallery, duplicates, evaluation report.

``page.html`` is the base template, ``parts.html`` has cards and names, ``charts.html`` charts,
``controls.html`` forms; ``base.css`` has the colours. A page is one file with embedded styles; for
a server, it links to them.
"""
