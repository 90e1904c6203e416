"""matplotlib's settings for the figures of a page: the same whoever draws them, wherever.

They are one dictionary of the process, which ``matplotlib.rc_context`` gives back whole: of two
threads that draw, the second gives back what the first had set.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dmstore",
    "font.family": ["sans-serif"],
    # Hundreds of images in one figure would be brought together by resampling each.
    "image.composite_image": False,
}
# What is about the user's machine and not about a figure; reading ``backend`` would choose one.
_KEPT = ("backend", "interactive", "toolbar", "webagg.", "tk.", "macosx.", "savefig.directory")
_LOCK = threading.RLock()


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Draw with matplotlib's defaults and the page's style; one thread at a time.

    Only what differs is changed, and given back unless somebody has changed it meanwhile.
    """
    import matplotlib as mpl

    with _LOCK:
        settings: Any = mpl.rcParams
        wanted = {**mpl.rcParamsDefault.copy(), **_STYLE}
        before = settings.copy()
        changed = [
            key
            for key, value in wanted.items()
            if not key.startswith(_KEPT) and before[key] != value
        ]
        try:
            for key in changed:
                settings[key] = wanted[key]
            ours = settings.copy()
            yield
        finally:
            for key in changed:
                if settings[key] == ours[key]:
                    settings[key] = before[key]
