"""Removal checks that are kept beside a comparison, as a page shows them: one entry a check and algorithm."""

from __future__ import annotations

from typing import Any

from dmstore.storage.table import groups
from dmstore.study.study import Study

_INTERVALS = ("scaled", "difference", "expected", "surplus")
# Not in those that were kept by earlier versions.
_LATER = (
    "spread",
    *(f"{name}{end}" for name in _INTERVALS for end in ("", "_low", "_high")),
)


def kept_removals(study: Study, where: str) -> list[dict[str, Any]]:
    """Removal checks kept beside a comparison, or below an algorithm; of one check that was made again the last.

    Parameters
    ----------
    study : Study
    where : str
        Of the comparison, or ``algorithms/NAME/removals/``; ends in ``/``.

    Returns
    -------
    list of dict
        ``name`` (such as ``top 5 % of direction A1``), ``algorithm``, ``share`` (percent), ``units`` left out, ``models``,
        ``controls``, ``seen`` (train units each), ``effect``, ``low``, ``high``, ``p``, ``predicted``, ``unit``, ``what``; and
        NaN in those that were kept without: ``spread``, ``scaled``, ``difference``, ``expected`` and ``surplus``, with their
        ``_low`` and ``_high``. ``less``: the first algorithm, whose scaled effect less this one's is the difference.

    Raises
    ------
    CorruptionError
        If one cannot be read.
    """
    checks: dict[tuple[Any, ...], tuple[tuple[int, ...], list[dict[str, Any]]]] = {}
    for child in study.objects.children(where):
        if not (child.startswith("removal-") and child.endswith(".zarr.zip")):
            continue
        arrays, attrs = groups.read_with_attrs(study.objects, f"{where}{child}")
        name, output = str(attrs.get("name", "")), str(attrs.get("output", ""))
        algorithms = [str(one) for one in arrays["algorithm"]]
        count = len(arrays["target"])
        rows = [
            {
                "name": name,
                "algorithm": algorithm,
                "share": float(attrs.get("share", "nan")),
                "units": len(arrays["unit"]),
                "models": int(arrays["models"][row]),
                "controls": int(arrays["controls"][row]),
                "seen": int(arrays["seen"][row]),
                "effect": float(arrays["effect"][row]),
                "low": float(arrays["effect_low"][row]),
                "high": float(arrays["effect_high"][row]),
                "p": float(arrays["p"][row]),
                "predicted": float(arrays["predicted"][row]),
                "less": algorithms[0],
                **{
                    key: float(arrays[key][row]) if key in arrays else float("nan")
                    for key in _LATER
                },
                "unit": "",
                "what": f"mean {output} of {count} {'target' if count == 1 else 'targets'}",
            }
            for row, algorithm in enumerate(algorithms)
        ]
        units = arrays["unit"].tobytes()
        key = (name, output, units, arrays["target"].tobytes(), *algorithms, *arrays["seen"])
        behind = int(arrays["spread_masks"].sum()) if "spread_masks" in arrays else 0
        # Where models were retracted the last one has fewer.
        made = (
            int(attrs.get("version", -1)),
            int(arrays["models"].sum() + arrays["controls"].sum()),
            behind,
        )
        if key not in checks or checks[key][0] < made:
            checks[key] = (made, rows)
    return [row for _, rows in checks.values() for row in rows]
