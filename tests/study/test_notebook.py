"""What notebooks use: views, selections, reprs, trees; and the example notebook itself."""

import contextlib
import html.parser
import json
import pickle
import shutil
import sys
import uuid
import warnings

import numpy as np
import pytest
import webserver
import xarray as xr
from helpers import examples, fill
from paths import ROOT

import dmstore
from dmstore.errors import InputError

NOTEBOOK = ROOT / "examples/explore.ipynb"


def test_the_notebook_runs(tmp_path):
    import nbclient
    import nbformat
    from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "strip the outputs"
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = 'import warnings\nwarnings.simplefilter("error")\n' + first.source
    # The kernel of this very environment, whatever kernels the machine has.
    folder = tmp_path / "kernels" / NATIVE_KERNEL_NAME
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "here", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    manager = KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")])
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name=NATIVE_KERNEL_NAME, resources={}
    )
    client.create_kernel_manager()
    client.km.kernel_spec_manager = manager
    with warnings.catch_warnings():
        # Jupyter's own packages warn of each other's changes.
        warnings.simplefilter("ignore")
        client.execute(cwd=str(tmp_path))
    said = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "125 runs, then 250 with 0 pending" in said
    assert "50 runs have outputs on the mirrored digits, 200 have not yet" in said
    assert "/datamodels/linear" in said
    shown = json.dumps(notebook.cells[-1].outputs)
    assert "250 of 250" in shown
    assert "text/html" in shown


@pytest.mark.parametrize("place", ["folder", "published", "archive", "web"])
def test_what_was_computed_once_can_be_sent_to_another_process(study, algorithm, tmp_path, place):
    from dmstore.sharing import publish

    fill(algorithm, range(40))
    dmstore.compact(study)
    fill(algorithm, range(40, 50))
    if place != "folder":
        publish(study, tmp_path / ("p.zip" if place == "archive" else "p"))
    with webserver.serve(tmp_path) if place == "web" else contextlib.nullcontext() as server:
        path = {"published": tmp_path / "p", "archive": tmp_path / "p.zip"}.get(place, study.path)
        opened = dmstore.open_study(f"{server.url}/p" if server else path)
        view = opened.view("alpha")
        margin = view.dataset.margin.values
        for sent in (opened, view, view.dataset, opened.runs("alpha"), opened.target(3)):
            back = pickle.loads(pickle.dumps(sent))
            if isinstance(back, xr.Dataset):
                assert np.array_equal(back.margin.values, margin)
        assert np.array_equal(pickle.loads(pickle.dumps(view)).dataset.margin.values, margin)


def test_what_is_in_memory_says_that_it_stays_there():
    made = dmstore.create_study(f"memory://{uuid.uuid4().hex}/s", examples())
    with pytest.raises(InputError, match="this process alone"):
        pickle.dumps(made)


class Tags(html.parser.HTMLParser):
    """Collects tags and checks that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(text: str) -> set[str]:
    parser = Tags()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.seen


def test_reprs_are_short_useful_and_escaped(tmp_path):
    from helpers import examples

    title = "<script>alert(1)</script>\x1b[31m & more"
    study = dmstore.create_study(tmp_path / "a<b>.dm", examples(), seed=1, about={"title": title})
    assert "none yet" in repr(study)
    algorithm = study.add_algorithm("alpha", runs=300)
    fill(algorithm, range(70))
    view = study.view("alpha")
    for found, words in (
        (study, ["37", "23 in test", "70 of 300"]),
        (algorithm, ["70 of 300", "0.5", "margin"]),
        (view, ["70 of 300", view.content_id[:12], "test"]),
    ):
        text, page = repr(found), found._repr_html_()
        assert all(word in text for word in words), text
        assert all(word in page for word in words), page
        assert len(text.splitlines()) < 12
        assert "\x1b" not in text + page
        assert tags(page) <= {"div", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert "&lt;script&gt;" in study._repr_html_()
    shutil.rmtree(study.path)
    for gone in (study, algorithm):
        assert "study.json is gone" in repr(gone)
        assert "study.json is gone" in gone._repr_html_()
    assert "70 of 300" in repr(view)


def test_repr_opens_no_array_and_few_segments(study, algorithm, monkeypatch):
    for run in range(70):
        fill(algorithm, [run])

    def refuse(*arguments):
        raise AssertionError("a repr read an array")

    monkeypatch.setattr("dmstore.storage.table.segment.read_arrays", refuse)
    assert "0 and 70 segments of 300" in repr(study)


def test_a_view_is_pinned_and_refreshes(study, algorithm):
    fill(algorithm, range(20))
    view = study.view("alpha")
    fill(algorithm, range(20, 30))
    again = view.refresh()
    assert (len(view), len(again)) == (20, 30)
    assert view.run.tolist() == list(range(20))
    assert again.pending.tolist() == list(range(30, 300))
    assert view.content_id != again.content_id
    assert again.content_id == again.refresh().content_id == study.runs("alpha").attrs["content_id"]
    assert view.dataset.sizes["run"] == 20
    assert len(study.view("alpha", "test")) == 30


def test_time_is_a_date_whatever_a_clock_said(study, algorithm):
    from helpers import make_rows

    from dmstore.storage.table.rows import Rows

    rows = make_rows(algorithm, range(4))
    clock = np.array([0, 1_700_000_000_123, -5, 2**61])
    algorithm.table.append(Rows(rows.run, rows.arrays, {**rows.columns, "time": clock}))
    time = study.runs("alpha").time
    assert time.dtype == np.dtype("datetime64[ns]")
    assert np.isnat(time.values).tolist() == [False, False, False, True]
    assert time.values[1] == np.datetime64("2023-11-14T22:13:20.123")
    recent = study.runs("alpha").sel(run=time > np.datetime64("2020-01-01"))
    assert recent.run.values.tolist() == [1]


def test_tree_goes_to_zarr_and_back_without_a_warning(tmp_path):
    from helpers import examples

    given = {**examples(), "target_id": np.array([f"t{i}" for i in range(23)])}
    study = dmstore.create_study(tmp_path / "s.dm", given, seed=1)
    algorithm = study.add_algorithm("alpha", runs=300, outputs=["margin", "logit"])
    masks = algorithm.masks(np.arange(80))
    with dmstore.training.RunWriter(study, "alpha") as writer:
        for run, mask in enumerate(masks):
            logit = np.full((23, 3), run) + mask[:3]
            writer.append(run, margin=np.full(23, run) * 1.0, logit=logit, note=f"run {run}")
    study.annotate("train", caption=[f"ä {i}" for i in range(37)])
    study.add_targets("later", {"label": np.arange(5) % 3, "id": [f"x{i}" for i in range(5)]})
    with dmstore.training.RunWriter(study, "alpha", target_set="later") as writer:
        for run in list(writer.pending())[:9]:
            writer.append(run, margin=np.zeros(5), logit=np.zeros((5, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = study.tree
        tree.to_zarr(tmp_path / "t.zarr", consolidated=False)
        again = xr.open_datatree(tmp_path / "t.zarr", engine="zarr", consolidated=False, chunks={})
        assert set(again.groups) == set(tree.groups)
        assert "/outputs/alpha/later" in tree.groups
        xr.testing.assert_equal(tree.load(), again.load())
    assert again["runs/alpha"].attrs == tree["runs/alpha"].attrs


@pytest.mark.parametrize("scheduler", ["threads", "sync", "processes"])
def test_dask_schedulers_agree(study, algorithm, scheduler):
    fill(algorithm, range(130))
    runs = study.runs("alpha")
    mean = runs.margin.mean("run")
    assert np.allclose(mean.compute(scheduler=scheduler), runs.margin.values.mean(axis=0))
