"""Captions of distinguishing subpopulations (paper, F.5): embedders, words, their ranking and tests on held-out images.

Imports: analysis.comparison and below; torch, open_clip and the like inside functions.
To add an embedder, a module with the methods of ``embedder.Embedder``, and its name in ``loading.py``.
"""
