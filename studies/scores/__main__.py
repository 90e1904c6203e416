"""TRAK scores of two ways to train, written by TRAK's own package, and compared without a study.

``python -m studies.scores FOLDER`` needs ``pip install traker`` and torch. Killed, it goes on where it was.
"""

import argparse

import numpy as np
import torch
import xarray as xr

from dmstore import demo
from studies.scores import networks
from studies.steps import Steps

ALGORITHMS = {"plain": False, "pasted": True}
NINE = 9
T_95 = {1: 12.71, 2: 4.303, 5: 2.571, 7: 2.365, 9: 2.262}


def options():
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m studies.scores", description=__doc__)
    parser.add_argument("folder")
    parser.add_argument(
        "--models", type=int, default=10, help="networks of each kind, an even number"
    )
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it works")
    return parser.parse_args()


def trained(folder, name, number, images, label, left_out=()):
    """Weights of one network, from the folder if they are there."""
    place = folder / "models" / f"{name}-{number}.pt"
    model = networks.network()
    if not place.exists():
        kept = np.setdiff1d(np.arange(len(images)), left_out)
        paste = ALGORITHMS[name.partition("-")[0]]
        model = networks.train(images[kept], label[kept], number, paste=paste)
        place.parent.mkdir(exist_ok=True)
        torch.save(model.state_dict(), place.with_suffix(".part"))
        place.with_suffix(".part").rename(place)
    model.load_state_dict(torch.load(place, weights_only=True))
    return model.eval()


def trak(folder, models, train, targets):
    """Scores of all networks, and of either half of them, by TRAK's package."""
    from trak import TRAKer

    halves = np.array_split(np.arange(len(models)), 2)
    experiments = {"all": np.arange(len(models)), "first": halves[0], "second": halves[1]}
    traker = TRAKer(
        model=models[0],
        task="image_classification",
        train_set_size=len(train[0]),
        save_dir=str(folder),
        device="cpu",
        proj_dim=512,
        use_half_precision=False,
    )
    for number, model in enumerate(models):
        traker.load_checkpoint(model.state_dict(), model_id=number)
        for some in torch.arange(len(train[0])).split(100):
            traker.featurize(batch=[column[some] for column in train], num_samples=len(some))
    traker.finalize_features()
    for experiment, numbers in experiments.items():
        for number in numbers.tolist():
            traker.start_scoring_checkpoint(
                experiment, models[number].state_dict(), number, len(targets[0])
            )
            for some in torch.arange(len(targets[0])).split(100):
                traker.score(batch=[column[some] for column in targets], num_samples=len(some))
        traker.finalize_scores(exp_name=experiment, model_ids=numbers.tolist())
    (folder / "done").touch()


def interval(values):
    """Mean and 95 % interval by Student's t over models."""
    half = T_95.get(len(values) - 1, 2.0) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.4f} (95 % {values.mean() - half:+.4f} to {values.mean() + half:+.4f})"


def main():
    """All steps."""
    given = options()
    steps = Steps(given.folder)
    torch.set_num_threads(1)
    columns = demo.digits()
    count, few = (2, 60) if given.tiny else (given.models, len(columns["target_label"]))
    columns = {k: v[:few] if k.startswith("target") else v for k, v in columns.items()}
    np.savez(steps.folder / "digits.npz", **columns)
    train, targets = (
        (networks.tensor(columns[f"{s}_image"]), torch.from_numpy(columns[f"{s}_label"]))
        for s in ("train", "target")
    )
    models = {
        name: [trained(steps.folder, name, k, *train) for k in range(count)] for name in ALGORITHMS
    }
    for name, some in models.items():
        if not (steps.folder / name / "done").exists():
            trak(steps.folder / name, some, train, targets)
    digits = ("--examples", "digits.npz")
    if not (steps.folder / "result" / "report.html").exists():
        steps("compare", "compare", *ALGORITHMS, "--experiment", "all", *digits, "--out", "result")
    for name in ALGORITHMS:
        parts = (
            "--experiment",
            "first",
            "--experiment",
            "second",
            "--name",
            f"{name}-1",
            f"{name}-2",
        )
        if not (steps.folder / f"halves-{name}" / "report.html").exists():
            steps(
                f"halves-{name}", "compare", name, name, *parts, *digits, "--out", f"halves-{name}"
            )
    halves(steps, (len(train[0]), len(targets[0])))
    ridge(steps, columns)
    change(steps, models, columns, targets[0])
    remove(steps, models, train, targets)
    steps.end()


def halves(steps, sizes):
    """Mean cosine of the scores of any two halves: networks 0 to 4 and 5 to 9 share neither seed nor projection."""
    rows = {}
    for name in ALGORITHMS:
        for half in ("first", "second"):
            file = steps.folder / name / "scores" / f"{half}.mmap"
            scores = np.lib.format.open_memmap(file, mode="r").reshape(sizes).T.astype(np.float64)
            rows[name, half] = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    a, b = ALGORITHMS
    pairs = {
        "itself, the other half": [((a, "first"), (a, "second")), ((b, "first"), (b, "second"))],
        "the other, the same seeds": [((a, h), (b, h)) for h in ("first", "second")],
        "the other, other seeds": [((a, "first"), (b, "second")), ((a, "second"), (b, "first"))],
    }
    cosine = {
        what: [float((rows[one] * rows[other]).sum(axis=1).mean()) for one, other in some]
        for what, some in pairs.items()
    }
    own, _, apart = cosine.values()
    lines = [f"  {what}: {', '.join(f'{c:.3f}' for c in some)}" for what, some in cosine.items()]
    noise_free = np.mean(apart) / np.sqrt(np.prod(own))
    lines.append(f"  less the noise, with other seeds: {noise_free:.3f}")
    keep(steps, "cosines", ["mean cosine of scores of half of the networks", *lines])


def ridge(steps, columns):
    """Scores in closed form, with all pixels and without the mark's: nothing random, so nothing is noise."""
    corner = np.arange(64).reshape(8, 8)[: networks.MARK, : networks.MARK].ravel()
    for name, seen in {
        "whole": np.arange(64),
        "cornerless": np.setdiff1d(np.arange(64), corner),
    }.items():
        train, target = (
            columns[f"{s}_image"].reshape(-1, 64)[:, seen] / 255 for s in ("train", "target")
        )
        inverse = np.linalg.inv(train.T @ train + np.eye(len(seen)))
        np.save(steps.folder / f"{name}.npy", target @ inverse @ train.T)
    if not (steps.folder / "ridge" / "report.html").exists():
        files = ("whole.npy", "cornerless.npy")
        steps("ridge", "compare", *files, "--examples", "digits.npz", "--out", "ridge")


def change(steps, models, columns, images):
    """What the mark does to P(nine) on images that have none and are no nines."""
    plain = torch.from_numpy((columns["target_label"] != NINE) & ~columns["target_marked"])
    lines = ["the mark, put on unmarked images that are no nines, changes P(nine)"]
    for name, some in models.items():
        with torch.no_grad():
            p = [
                [
                    model(x).softmax(1)[:, NINE].mean()
                    for x in (networks.marked(images[plain]), images[plain])
                ]
                for model in some
            ]
        with_mark, without = np.array(p).T
        lines.append(f"  {name}: by {interval(with_mark - without)}, {len(some)} models")
    keep(steps, "change", lines)


def remove(steps, models, train, targets):
    """What both lose on direction 1's targets without the train images that weigh most in it."""
    compared = xr.open_zarr(steps.folder / "result" / "comparison.zarr", consolidated=False)
    units = np.argsort(-compared["direction"].values[0, 0])[: len(train[0]) // 20]
    asked = compared["subpopulation"].values[0, 0, 0]
    draw = np.random.default_rng(0)
    lines = [
        f"margin of direction 1's {len(asked)} targets, without its {len(units)} heaviest train images"
    ]
    for name, some in models.items():
        means = []
        for kind in ("without", "control"):
            left_out = [
                units
                if kind == "without"
                else draw.choice(len(train[0]), len(units), replace=False)
                for _ in some
            ]
            again = [
                trained(steps.folder, f"{name}-{kind}", k, *train, left_out=left_out[k])
                for k in range(len(some))
            ]
            means.append(
                [networks.margins(m, targets[0][asked], targets[1][asked]).mean() for m in again]
            )
        lines.append(f"  {name}: {interval(np.subtract(*means))} against as many at random")
    keep(steps, "removal", lines)


def keep(steps, name, lines):
    """Print lines and keep them."""
    (steps.folder / "said" / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
