"""Who made something, where and when: what stored documents say of it. Nothing is decided by it."""

from __future__ import annotations

import datetime
import platform

import dmstore


def version() -> str:
    """The version of dmstore."""
    return dmstore.__version__


def host() -> str:
    """The name of this machine."""
    return platform.node()


def utc_now() -> str:
    """The host's time in ISO form, for people to read; nothing is decided by it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def software() -> str:
    """Name and version of this software, for provenance."""
    return f"dmstore {dmstore.__version__}"
