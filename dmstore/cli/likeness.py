"""Tables of ``dmstore compare``: how alike many algorithms are, and whether directions are found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmstore.cli import output

if TYPE_CHECKING:
    import xarray as xr


def several(
    items: tuple[str, ...],
    where: tuple[str, ...],
    threads: int | None,
    random_state: int,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """How alike three or more algorithms are, as a table."""
    from dmstore.analysis import similarities
    from dmstore.analysis.comparison.answer import finite
    from dmstore.study.study import open_study

    progress = output.Progress("compare", quiet=quiet, delay=2)
    found = similarities(
        open_study(items[0]),
        items[1:],
        where=where,
        threads=threads,
        random_state=random_state,
        progress=progress,
    )
    progress.close()
    names = list(items[1:])
    measured = "similarity" in found
    order = found["order"].values.tolist()
    shown = found["similarity" if measured else "cosine"].values
    width = max(map(len, names))
    wide = max(width, 13 if measured else 6)
    lines = [
        "similarity without noise, with its standard error; 1 means the same up to a scale"
        if measured
        else "mean cosine similarity of the datamodels, noise included",
        "  ".join([" " * width, *(names[k].rjust(wide) for k in order)]),
    ]
    for i in order:
        cells = []
        for j in order:
            text = "unknown" if shown[i, j] != shown[i, j] else f"{shown[i, j] + 0.0:.3f}"
            if measured and i != j and text != "unknown":
                text += f" ± {found['similarity_error'].values[i, j]:.3f}"
            cells.append(text.rjust(wide))
        lines.append("  ".join([names[i].ljust(width), *cells]))
    lines.append(f"in the order of average linkage over 1 less the {found.attrs['by']}")
    result = {
        "algorithms": names,
        "order": [names[k] for k in order],
        "by": found.attrs["by"],
        "where": found.attrs.get("where"),
        **{
            key: finite(found[key].values.tolist())
            for key in ("cosine", "similarity", "similarity_error", "linkage")
            if key in found
        },
    }
    output.emit(result, lines, as_json=as_json)


def outlasts(
    comparison: xr.Dataset, items: tuple[str, ...]
) -> tuple[list[list[float | None]] | None, list[str]]:
    """How alike directions of all targets and those where predictions agree are (Table 2), if both are there."""
    from dmstore.analysis import direction_likeness
    from dmstore.analysis.comparison.agreement import without_agreement
    from dmstore.analysis.comparison.answer import finite
    from dmstore.study.study import open_study

    study = open_study(items[0])
    kept = study.comparisons
    own = next(one for one in kept if one["comparison"] == comparison.attrs["comparison"])
    whole = without_agreement(kept, own)
    if whole is None:
        return None, [
            "  compare without --agree too, to see whether directions are the same where predictions differ"
        ]
    found = direction_likeness(
        study.comparison(items[1], items[2], whole["comparison"]), comparison
    )
    lines = ["  directions without --agree that are found again here, absolute cosine:"]
    for name, row in zip(found["algorithm"].values, found["likeness"].values, strict=True):
        known = [f"{one:.3f}" for one in row[:5] if one == one]
        lines.append(f"    {name}: {', '.join(known) or 'none'}")
    return finite(found["likeness"].values.tolist()), lines


def coherent(
    items: tuple[str, ...], comparison: str
) -> tuple[list[dict[str, str | int | float]], list[str]]:
    """Whether subpopulations are coherent, as a result for programs and as a table."""
    from dmstore.analysis import coherences
    from dmstore.study.study import open_study

    found = coherences(open_study(items[0]), *items[1:], comparison=comparison)
    names = [str(one) for one in found["algorithm"].values]
    entries: list[dict[str, str | int | float]] = []
    lines = [
        "  coherence of the top targets of each direction that half of the runs find, on the other half:"
    ]
    for row, name in enumerate(names):
        for k in range(found.sizes["component"]):
            one = found.isel(algorithm=row, component=k)
            if not int(one["members"]):
                continue
            keys = ("coherence", "null", "p", "q")
            entry: dict[str, str | int | float] = {"algorithm": name, "direction": k + 1}
            entry |= {key: float(one[key]) for key in keys} | {"members": int(one["members"])}
            entries.append(entry)
            lines.append(
                f"    {name} {k + 1}: {entry['coherence']:+.3f}, random sets of the same classes {entry['null']:+.3f}; q {entry['q']:.2g}"
            )
    return entries, lines if entries else []
