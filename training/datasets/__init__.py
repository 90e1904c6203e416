"""Data sets: what labs have on disk as examples of a study, and its images found again by their ids.

Nothing is downloaded, and images that are files stay where they are: a study holds ids, labels, groups, thumbnails, and
of each file its path and a digest.
To add a data set, a module with ``examples(root, *, limit, progress)`` that gives :class:`~dmstore.training.datasets.dataset.Examples`,
and its line in ``DATASETS``.
"""

from __future__ import annotations

from dmstore.training.datasets.making import DATASETS, make_study

__all__ = ["DATASETS", "make_study"]
