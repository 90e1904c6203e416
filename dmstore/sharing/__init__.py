"""Sharing between labs: publish a study, pull a copy, check it, and say how two studies differ.

Imports: upkeep, study and below.
To add what is published, ``contents.py``; what is checked of strangers' files, ``checking.py`` and ``tests/support/hostile.py``.
"""

from __future__ import annotations

from dmstore.sharing.checking import check_index as check_index
from dmstore.sharing.difference import diff as diff
from dmstore.sharing.publishing import publish as publish
from dmstore.sharing.pulling import pull as pull

__all__ = ["check_index", "diff", "publish", "pull"]
