"""The commands that make a comparison again, from what is kept of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dmstore.analysis.comparison.agreement import AGREE

# Parameters of a fit and of a comparison: option, and what it is by default.
_FIT = {
    "lams": ("--lams", 50),
    "lam_ratio": ("--lam-ratio", 0.01),
    "lam": ("--lam", None),
    "folds": ("--folds", 0),
    "patience": ("--patience", 5),
    "tolerance": ("--tolerance", 1e-5),
    "solver": ("--solver", "gram"),
}
_COMPARE = {
    "components": ("--components", 10),
    "top": ("--top", 16),
    "random_state": ("--random-state", 0),
    "fdr": ("--fdr", 0.05),
}
_CONDITION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:!=|<=|>=|=|<|>)")


def fit_command(study: str, algorithm: str, output: str, parameters: Mapping[str, Any]) -> str:
    """``dmstore fit`` with what is not as it is by default.

    Parameters
    ----------
    study, algorithm, output : str
    parameters : mapping
        Of the fit's document.
    """
    words = ["dmstore", "fit", study, algorithm]
    if output != "margin":
        words += ["--output", output]
    words += _options(parameters, _FIT)
    if parameters.get("lam_grid"):
        words += ["--lam-grid", ",".join(f"{one!r}" for one in parameters["lam_grid"])]
    if parameters.get("halves") is False:
        words.append("--no-halves")
    return _said(words)


def compare_command(study: str, names: Sequence[str], parameters: Mapping[str, Any]) -> str:
    """``dmstore compare`` with what is not as it is by default.

    Parameters
    ----------
    study : str
    names : sequence of str
    parameters : mapping
        Of the comparison's document.
    """
    words = ["dmstore", "compare", study, *names, *_options(parameters, _COMPARE)]
    if parameters.get("center") is False:
        words.append("--no-center")
    stated = str(parameters.get("where", ""))
    if "agree" in parameters:
        stated = stated.removesuffix(AGREE).removesuffix(", ")
    for condition in _conditions(stated):
        words += ["--where", condition]
    if "agree" in parameters:
        words.append("--agree")
    return _said(words)


def _conditions(stated: str) -> list[str]:
    """Conditions and files as they were given: a file is kept by its name and a digest, and values may have commas."""
    made: list[str] = []
    for part in re.sub(r" \(\d+ ids, sha256 [0-9a-f]+\)", "\0", stated).split(", "):
        if made and not part.endswith("\0") and not _CONDITION.match(part):
            made[-1] += f", {part}"
        elif part:
            made.append(part)
    return [one.removesuffix("\0") for one in made]


def report_command(study: str, names: Sequence[str], comparison: str) -> str:
    """``dmstore report`` of this very comparison."""
    return _said(["dmstore", "report", study, *names, "--comparison", comparison])


def _options(parameters: Mapping[str, Any], known: Mapping[str, tuple[str, Any]]) -> list[str]:
    words: list[str] = []
    for key, (option, default) in known.items():
        value = parameters.get(key, default)
        if value != default:
            words += [option, str(value)]
    return words


def _said(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
