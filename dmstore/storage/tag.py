"""Tags: names for committed bases, which vacuum then keeps."""

from __future__ import annotations

from typing import Any

from dmstore import schema
from dmstore.errors import ExistsError, IncompleteError
from dmstore.storage import log
from dmstore.storage.table import Table


def create(table: Table, name: str) -> dict[str, Any]:
    """Tag the base in force.

    Returns
    -------
    dict
        The tag: ``name``, ``version``, ``base``, ``runs``, ``content_id``.

    Raises
    ------
    InputError
        If the name is not allowed.
    ExistsError
        If the tag exists; tags never move.
    IncompleteError
        If there is no base yet, or vacuum took it at the same moment.
    """
    schema.check_name(name, "tag")
    taken = {
        other.removesuffix(".json").lower()
        for other in table.objects.children(f"{table.prefix}tags/")
    }
    manifest = log.newest(table.objects, table.prefix)
    if manifest.base is None:
        msg = f"tag {name!r}: there is no base yet; run 'dmstore compact' first"
        raise IncompleteError(msg)
    tag = {
        "name": name,
        "version": manifest.version,
        "base": manifest.base.path,
        "runs": manifest.base.runs,
        "content_id": manifest.base.content_id,
        "created": log.utc_now(),
    }
    where = f"{table.prefix}tags/{name}.json"
    if name.lower() in taken or not table.objects.put_if_absent(
        where, schema.dump_document("tag", tag)
    ):
        msg = f"tag {name!r} exists; tags never move, choose another name"
        raise ExistsError(msg)
    # A vacuum may have decided to remove the base before it could see the tag.
    base = f"{table.prefix}{manifest.base.path}"
    removed = base in log.newest(table.objects, table.prefix).removed
    if removed or not table.objects.exists(f"{base}/zarr.json"):
        table.objects.delete(where)
        msg = f"tag {name!r}: vacuum removed the base at the same moment; run the command again"
        raise IncompleteError(msg)
    return tag


def read_all(table: Table) -> list[dict[str, Any]]:
    """All tags, by name."""
    names = [
        name for name in table.objects.children(f"{table.prefix}tags/") if name.endswith(".json")
    ]
    return [
        schema.load_document("tag", table.objects.get(f"{table.prefix}tags/{name}"), f"tags/{name}")
        for name in names
    ]
