"""What was exported comes back by ``ingest`` as what it was, by itself."""

import json

import numpy as np
import pytest
from helpers import Done, examples

import dmstore
from dmstore import readers
from dmstore.exporters.export import export
from dmstore.intake.ingest import take_in as ingest
from dmstore.readers.source import Request
from dmstore.storage.table.rows import Rows

RUNS, TARGET, TRAIN = 23, 23, 23  # as many runs as targets as train units: no size tells
DECLARED = {
    "margin": {"dtype": "float16", "dims": ["run", "target"]},
    "losses": {"dtype": "float32", "dims": ["run", "target"]},
    "logits": {"dtype": "float32", "dims": ["run", "target", "class"]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of odd ids, with columns that the layouts have names for, and a row of zeros; a fit."""
    path = tmp_path_factory.mktemp("returns") / "s.dm"
    study = dmstore.create_study(path, examples(train=TRAIN, target=TARGET), seed=3)
    about = {"function": "f", "orientation": "higher is worse", "units": "none"}
    outputs = {name: {**entry, **about} for name, entry in DECLARED.items()}
    made = study.add_algorithm("f", sampling="foreign", alpha=None, outputs=outputs)
    draw = np.random.default_rng(0)
    mask = draw.random((RUNS, TRAIN)) < 0.5
    mask[5] = False
    arrays = {
        "mask": mask,
        "margin": draw.normal(size=(RUNS, TARGET)).astype(np.float16),
        "losses": draw.normal(size=(RUNS, TARGET)),
        "logits": draw.normal(size=(RUNS, TARGET, 3)),
    }
    arrays["losses"][7] = 0
    columns = {
        "time": np.full(RUNS, 7),
        "host": np.full(RUNS, "h"),
        "seed": np.arange(RUNS, dtype=np.uint64),
        "masks": np.arange(RUNS),
        "margins": np.arange(RUNS) / 7,
        "weight": np.arange(RUNS) % 2 == 0,
        "note": np.array([f"ü{i}" for i in range(RUNS)], dtype=object),
    }
    ids = np.arange(RUNS) * 13 + 4
    made.table.append(made.complete(Rows(ids, arrays, columns), "test"))
    return study


@pytest.mark.parametrize("to", ["npy", "safetensors", "truth"])
def test_into_the_same_algorithm_and_into_a_new_study(made, tmp_path, to):
    algorithm = made.algorithm("f")
    what = {"outputs": ["margin"], "split": "all"} if to == "truth" else {}
    # A name that says nothing of the format.
    export(made, "f", to, tmp_path / "out", **what)
    if to != "truth":
        again = ingest(algorithm, [tmp_path / "out"])
        assert (again.new, again.present, again.skipped, again.errors) == (0, RUNS, 0, [])
        assert again.warnings == []
    done = Done("ingest", tmp_path / "n.dm", "f", tmp_path / "out", "--create")
    assert done.returncode == 0, done.stderr
    other = dmstore.open_study(tmp_path / "n.dm").algorithm("f")
    names = ["margin"] if to == "truth" else list(DECLARED)
    assert other.outputs == {name: algorithm.outputs[name] for name in names}
    names += ["run", "mask", "mask_id"]
    if to != "truth":
        names += ["seed", "time", "host", "masks", "margins", "weight", "note"]
    old, new = algorithm.table.view().read(names), other.table.view().read(names)
    for name in names:
        assert new[name].dtype == old[name].dtype, name
        assert new[name].tolist() == old[name].tolist(), name


def test_datamodels_beside_the_runs_are_no_runs(made, tmp_path):
    """With as many targets as runs a weight could be an output, and a bias a column."""
    path = tmp_path / "a.safetensors"
    export(made, "f", "safetensors", path)
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header, end = json.loads(raw[8:start]), len(raw) - start
    metadata = header["__metadata__"]
    dims = json.loads(metadata["dims"])
    for name, shape in (("weight_", [TARGET, TRAIN]), ("bias", [TARGET])):
        size = 8 * int(np.prod(shape))
        header[name] = {"dtype": "F64", "shape": shape, "data_offsets": [end, end + size]}
        dims[name], end = ["target", "train"][: len(shape)], end + size
    metadata["dims"] = json.dumps(dims)
    text = json.dumps(header).encode()
    body = raw[start:].ljust(end, b"\1")
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    again = ingest(made.algorithm("f"), [path])
    assert (again.present, again.warnings, again.errors) == (RUNS, [], [])
    source = readers.open_source(path, "arrays", Request())
    assert set(source.outputs) == set(DECLARED)
    assert "bias" not in source.columns


def test_a_planned_algorithm_takes_its_own_export(study, algorithm, tmp_path):
    from helpers import fill

    fill(algorithm, range(7, 20))
    export(study, "alpha", "npy", tmp_path / "out")
    again = ingest(algorithm, [tmp_path / "out"])
    assert (again.new, again.present, again.errors) == (0, 13, [])
    copy = study.add_algorithm("copy", runs=300, outputs=["margin", "prediction"])
    assert ingest(copy, [tmp_path / "out"]).new == 13
    assert copy.table.view().content_id() == algorithm.table.view().content_id()


def test_exports_of_before_come_back_too(made, tmp_path):
    """They say their outputs, but not what each array is called here."""
    for to, options in (("npy", {}), ("truth", {"outputs": ["losses"], "split": "all"})):
        export(made, "f", to, tmp_path / to, **options)
        where = tmp_path / to / "dmstore.json"
        document = json.loads(where.read_text())
        del document["arrays"]
        where.write_text(json.dumps(document))
    assert ingest(made.algorithm("f"), [tmp_path / "npy"]).present == RUNS
    outputs = {"losses": made.algorithm("f").outputs["losses"]}
    one = dmstore.open_study(made.path)
    if "one" not in one.algorithms:
        one.add_algorithm("one", sampling="foreign", alpha=None, outputs=outputs)
    assert ingest(one.algorithm("one"), [tmp_path / "truth"]).new == RUNS
    assert (
        one.algorithm("one").table.view().run.tolist()
        == made.algorithm("f").table.view().run.tolist()
    )


@pytest.mark.parametrize(
    "text", ["", "[]", '{"outputs": 3}', '{"outputs": {"margin": {}}, "arrays": 5}']
)
def test_a_note_that_is_none_is_refused(made, tmp_path, text):
    export(made, "f", "npy", tmp_path / "out")
    (tmp_path / "out/dmstore.json").write_text(text)
    (error,) = ingest(made.algorithm("f"), [tmp_path / "out"]).errors
    assert "dmstore.json: does not say what an export" in error


def test_the_user_may_still_name_arrays(made, tmp_path):
    export(made, "f", "npy", tmp_path / "out")
    other = dmstore.open_study(made.path)
    if "named" not in other.algorithms:
        other.add_algorithm("named", sampling="foreign", alpha=None)
    done = Done("ingest", made.path, "named", tmp_path / "out", "--output", "margin=losses")
    assert done.returncode == 0, done.stderr
    view = other.algorithm("named").table.view()
    assert view.run.tolist() == made.algorithm("f").table.view().run.tolist()
