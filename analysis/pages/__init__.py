"""Pages that show fits and comparisons.

Imports: analysis.plot, analysis.comparison, analysis.evaluation and below.
To add a part of the page, its data in ``page.py`` and its place in ``report.html``, looked at in a browser.
"""
