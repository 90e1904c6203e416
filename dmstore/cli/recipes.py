"""``dmstore recipes``."""

from __future__ import annotations

import json

import click

from dmstore.cli import options, output

# Of a setting with its value; what is wider stands out.
_WIDEST = 32


@click.command("recipes")
@click.argument("name", required=False)
@options.as_json
def command(name: str | None, as_json: bool) -> None:
    """List the learning algorithms that come with dmstore, or show NAME with all its values.

    \b
    Example:
      dmstore recipes cifar10-low-noise
      dmstore add cifar.dm low-noise --recipe cifar10-low-noise --set epochs=50 --runs 1000
    """
    from dmstore.training.config import TrainingConfig, explained
    from dmstore.training.recipe import find, recipes

    if name is None:
        known = [recipe.document() for recipe in recipes()]
        width = max(len(one["name"]) for one in known)
        output.emit(
            known,
            [f"{one['name']:{width}}  {one['model']:8}  {one['title']}" for one in known],
            as_json=as_json,
        )
        return
    shown = find(name).document()
    explanations = explained(TrainingConfig)
    given = {key: f"{key} = {json.dumps(value)}" for key, value in shown["config"].items()}
    width = max(len(text) for text in given.values() if len(text) <= _WIDEST)
    output.emit(
        {**shown, "settings": explanations},
        [
            f"{name}, version {shown['version']}: {shown['title']}",
            shown["source"],
            *([shown["note"]] if shown["note"] else []),
            *(f"  {text:{width}}  {explanations[key]}".rstrip() for key, text in given.items()),
        ],
        as_json=as_json,
    )
