"""``dmstore caption``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    import xarray as xr

_SHOWN = 5


@click.command("caption", options_metavar="[OPTIONS]")
@options.study
@click.argument("a")
@click.argument("b")
@click.option(
    "--embedder",
    metavar="NAME",
    default=None,
    help="open_clip:local-dir:FOLDER, open_clip:hf-hub:ORG/NAME, open_clip:PE-Core-T or open_clip:MobileCLIP2-S2 (from the hub), standin, or package.module:function.",
)
@click.option(
    "--words",
    metavar="FILE|wordfreq[:N]",
    default=None,
    help="Captions to choose from, one a line; wordfreq by default. Of texts all their words.",
)
@click.option("--texts", metavar="NAME", default=None, help="Annotation with the targets' texts.")
@click.option(
    "--images", metavar="NAME", default="image", show_default=True, help="That with their images."
)
@click.option("--comparison", metavar="ID", help="A comparison by its name; the newest by default.")
@click.option(
    "--component",
    "components",
    type=click.IntRange(1),
    multiple=True,
    help="These directions of either algorithm alone, counted from 1; repeat for several.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Caption directions that are not beyond chance too; their captions are marked.",
)
@click.option(
    "--top",
    type=click.IntRange(16),
    default=None,
    help="Targets of an end; a tenth of all by default, from 48 to 200.",
)
@click.option(
    "--contrast",
    type=click.Choice(["class", "all"]),
    default="class",
    show_default=True,
    help="Compare an end with others of its classes, or with any others, as the paper does.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    default=("{}",),
    metavar="TEXT",
    help="Text around a caption, such as 'a photo of {}'; the caption alone by default. Repeat for the mean of several.",
)
@click.option(
    "--fdr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="False discovery rate of captions that are marked as beyond chance.",
)
@click.option(
    "--seed",
    type=options.SEED,
    default=0,
    show_default=True,
    help="Draws the halves and the contrast.",
)
@options.quiet
@options.as_json
def command(
    path: str,
    a: str,
    b: str,
    embedder: str | None,
    words: str | None,
    texts: str | None,
    images: str,
    comparison: str | None,
    components: tuple[int, ...],
    everything: bool,
    top: int | None,
    contrast: str,
    templates: tuple[str, ...],
    fdr: float,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Say in words what both ends of a comparison's directions show: captions of images, or words of texts.

    One half of an end's targets proposes captions, the other half tests them, against others of their classes.
    Directions that are not beyond chance get none. Embeddings and captions are kept in the study.

    \b
    Examples:
      dmstore caption birds.dm pretrained scratch --embedder open_clip:PE-Core-T
      dmstore caption birds.dm pretrained scratch --embedder standin --words proposals.txt
      dmstore caption reviews.dm plain cleaned --texts text
    """
    from dmstore.analysis import caption
    from dmstore.study.study import open_study

    options.find_tasks_here()
    bars: dict[str, output.Progress] = {}

    def tell(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = output.Progress(what, quiet=quiet, delay=2)
        bars[what](what, done, total)

    found = caption(
        open_study(path),
        a,
        b,
        embedder=embedder,
        words=words,
        texts=texts,
        images=images,
        comparison=comparison,
        components=[one - 1 for one in components] or None,
        everything=everything,
        top=top,
        contrast=contrast,
        templates=templates,
        fdr=fdr,
        random_state=seed,
        progress=tell,
    )
    for bar in bars.values():
        bar.close()
    output.emit(_result(found), _lines(found), as_json=as_json)


def _result(found: xr.Dataset) -> dict[str, Any]:
    from dmstore.analysis.captions.kept import listed

    texts = [str(one) for one in found["text"].values]
    ends = []
    for end in listed(found):
        at = found.sel(algorithm=end["algorithm"], component=end["component"], end=end["end"])
        pairs = zip(at["paper"].values.tolist(), at["paper_score"].values.tolist(), strict=True)
        paper = [{"text": texts[k], "score": score} for k, score in pairs if k >= 0]
        ends.append({**end, "component": end["component"] + 1, "paper": paper})
    return {**found.attrs, "ends": ends}


def _lines(found: xr.Dataset) -> list[str]:
    result = _result(found)
    lines = [f"captions by {result['embedder']}, of {result['words']}:"]
    claimed, silent = 0, 0
    for end in result["ends"]:
        beyond = [one for one in end["captions"] if one["beyond"]]
        claimed += len(beyond)
        silent += not beyond
        if not beyond and end["direction_beyond"]:
            continue
        noise = "" if end["direction_beyond"] else "; the direction is not beyond chance"
        lines.append(
            f"  {end['end']} of direction {end['component']} of {end['algorithm']} ({end['images']} targets against {end['contrast']}{noise}):"
        )
        for one in (beyond or end["captions"])[:_SHOWN]:
            star = " *" if one["beyond"] else ""
            lines.append(
                f"    {one['text']:20.60}  AUROC {one['auroc']:.2f} ({one['auroc_low']:.2f} to {one['auroc_high']:.2f}), q {one['q']:.2g}{star}"
            )
        if len(beyond) > _SHOWN:
            lines.append(f"    and {len(beyond) - _SHOWN} further ones beyond chance")
        shown = ", ".join(one["text"][:60] for one in end["paper"][:_SHOWN])
        lines.append(f"    by the paper's score, untested: {shown}")
    ends = output.counted(len(result["ends"]), "end")
    lines.append(f"  {silent} of {ends} have no caption beyond chance; --json has all of them")
    said = output.counted(claimed, "caption")
    lines.append(
        f"  {said} beyond chance (*) at a false discovery rate of {result['fdr']:g}, on targets that did not propose them"
    )
    return lines + [f"  {note}" for note in result["notes"]]
