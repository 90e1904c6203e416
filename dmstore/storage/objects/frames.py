"""What compressed bytes say of their own length, read without decompressing them.

A few bytes of blosc or zstd can grow to gigabytes; here is told beforehand how many they become.
"""

from __future__ import annotations

_ZSTD = b"\x28\xb5\x2f\xfd"
_LARGEST_BLOCK = 1 << 17


def zstd_size(content: bytes) -> int:
    """Bytes that one whole zstd frame decodes to.

    Raises
    ------
    ValueError
        If it is not exactly one frame that states its length, or its blocks cannot be that long.
    """
    if content[:4] != _ZSTD or len(content) < 6:
        msg = "a chunk is no zstd frame"
        raise ValueError(msg)
    descriptor = content[4]
    single = bool(descriptor & 0x20)
    width = {0: 1 if single else 0, 1: 2, 2: 4, 3: 8}[descriptor >> 6]
    place = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    if not width:
        msg = "a zstd frame does not state its length"
        raise ValueError(msg)
    size = int.from_bytes(content[place : place + width], "little") + (256 if width == 2 else 0)
    place += width
    blocks, last = 0, False
    while not last:
        head = int.from_bytes(content[place : place + 3], "little")
        last, kind, length = bool(head & 1), head >> 1 & 3, head >> 3
        if place + 3 > len(content) or kind == 3:
            msg = "a zstd frame is cut or damaged"
            raise ValueError(msg)
        # A block of one repeated byte is stored as that byte.
        place += 3 + (1 if kind == 1 else length)
        blocks += 1
    if place + (4 if descriptor & 4 else 0) != len(content) or size > blocks * _LARGEST_BLOCK:
        msg = "a zstd frame is cut, is followed by something, or is shorter than it says"
        raise ValueError(msg)
    return size


def check_blosc(head: bytes, length: int, expected: int) -> None:
    """Refuse a blosc chunk that would decode to other than the expected number of bytes.

    Parameters
    ----------
    head : bytes
        Its first 16 bytes.
    length : int
        Bytes that it has.
    expected : int
        Bytes that it is to become.

    Raises
    ------
    ValueError
        If its header says so, or does not fit its length.
    """
    said = tuple(int.from_bytes(head[at : at + 4], "little") for at in (4, 12))
    if length < 16 or said != (expected, length):
        msg = f"a chunk says {said[0]} bytes, and {expected} are expected; it is cut or damaged"
        raise ValueError(msg)
