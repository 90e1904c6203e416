"""Recipes: learning algorithms by name and version, each a file under ``recipes/``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dmstore.core import strictjson
from dmstore.errors import InputError
from dmstore.training.config import TrainingConfig, parse

TASK = "dmstore.training.tasks:recipe"
_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """A named learning algorithm.

    Attributes
    ----------
    name : str
    version : int
        Grows with every change of a value.
    title : str
    source : str
        Where its values are from, such as a section of the paper.
    note : str
        Where sources disagree, and what was not run.
    config : TrainingConfig
    """

    name: str
    version: int
    title: str
    source: str
    note: str
    config: TrainingConfig

    def document(self) -> dict[str, Any]:
        """What ``dmstore recipes --json`` shows of it."""
        values = asdict(self.config)
        return {
            "name": self.name,
            "version": self.version,
            "title": self.title,
            "dataset": values["dataset"],
            "model": values["model"],
            "source": self.source,
            "note": self.note,
            "config": values,
        }


def recipes() -> list[Recipe]:
    """All recipes, by name."""
    return [_read(path) for path in sorted(_FOLDER.glob("*.json"))]


def find(name: str) -> Recipe:
    """The recipe of a name.

    Raises
    ------
    InputError
        If there is none.
    """
    path = _FOLDER / f"{name}.json"
    names = [one.stem for one in sorted(_FOLDER.glob("*.json"))]
    if name not in names:
        msg = f"there is no recipe {name!r}; there are {', '.join(names)}"
        raise InputError(msg)
    return _read(path)


def resolve(name: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every value of a recipe, with some changed: what an algorithm keeps as its config.

    Parameters
    ----------
    name : str
    changes : mapping, optional

    Raises
    ------
    InputError
        Naming every change that does not fit.
    """
    recipe = find(name)
    values = {**asdict(recipe.config), **(changes or {})}
    return asdict(TrainingConfig.of(values, f"recipe {name}"))


def settings(given: Sequence[str]) -> dict[str, Any]:
    """Values of ``--set key=value``: JSON where they are, else texts.

    Raises
    ------
    InputError
        Naming each that has no ``=``.
    """
    wrong = [one for one in given if "=" not in one]
    if wrong:
        msg = f"--set {', '.join(wrong)}: give key=value, such as --set epochs=10"
        raise InputError(msg)
    return {key.strip(): _value(value) for key, _, value in (one.partition("=") for one in given)}


def _value(given: str) -> Any:
    try:
        return json.loads(given)
    except ValueError:
        pass
    try:
        # What people write and JSON has not: .1
        return float(given)
    except ValueError:
        return given


def _read(path: Path) -> Recipe:
    document = strictjson.parse(path.read_bytes())
    config = parse(
        TrainingConfig,
        {
            **document["config"],
            "recipe": path.stem,
            "recipe_version": document["version"],
            "dataset": document["dataset"],
        },
        f"recipe {path.stem}",
    )
    return Recipe(
        path.stem,
        document["version"],
        document["title"],
        document["source"],
        document.get("note", ""),
        config,
    )
