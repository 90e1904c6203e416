"""The page in a browser: clicks, filters, keys, hostile names, one file and a folder. Needs Chromium."""

import html
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import xarray as xr

from dmstore.analysis import modeldiff
from dmstore.analysis.pages.bundle import files_of, write
from dmstore.analysis.pages.page import render
from dmstore.analysis.pages.page_data import Subject
from dmstore.readers.labels import Labels

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "DMSTORE_CI_BROWSER" not in os.environ, reason="there is no Chromium"
)
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
TARGETS, TRAIN = 60, 40


def subject(kind="image"):
    """Examples whose names try to break out, as images or as texts."""
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(2, TARGETS, TRAIN)).astype("f4")
    weight[0, :20, :5] += 6
    data = [xr.DataArray(one, dims=("target", "train")) for one in weight]
    sets = {}
    for dim, count in (("train", TRAIN), ("target", TARGETS)):
        columns = {
            "label": (dim, np.arange(count) % 3),
            "note": (dim, np.array([EVIL, "=SUM(A1)", "plain"])[np.arange(count) % 3]),
            "seen": (dim, np.arange(count) % 2 == 0),
        }
        if kind != "text":
            columns["image"] = (
                (dim, "h", "w", "c"),
                draw.integers(0, 255, (count, 32, 32, 3), "u1"),
            )
            # Numbers that are called as texts are elsewhere.
            columns["text"] = (dim, np.arange(count))
        if kind != "image":
            columns["text"] = (
                dim,
                [f"text {i} {EVIL} " + "word " * (i * 10) for i in range(count)],
            )
        sets[dim] = xr.Dataset(columns, coords={dim: [f"{dim[0]}{i}{EVIL}" for i in range(count)]})
    labels = Labels(sets["train"], sets["target"], [EVIL, "two", "three"])
    found = modeldiff(
        *data,
        names=("</script><b>" + "W" * 28, "b"),
        label=sets["target"]["label"].values,
        components=3,
    )
    cards = [{"title": EVIL, "rows": [("<b>", EVIL)]}] * 2
    made = Subject(EVIL, labels, cards, [(EVIL, EVIL)], weights=data, scores_only=True)
    return found.assign_coords(target=sets["target"]["target"].values), made


def browse(place, steps, width=1200):
    """What some JavaScript returns on a page, once it has loaded; errors of the page fail."""
    page = place.read_text(encoding="utf-8")
    first = "<script>window.faults = []; window.onerror = (m) => { faults.push(m); }; console.error = (...m) => { faults.push(m.join(' ')); };</script>"
    last = f"""<script>addEventListener("load", async () => {{
        const $ = (id) => document.getElementById(id);
        const all = (css) => [...document.querySelectorAll(css)];
        const type = (id, value) => {{ $(id).value = value; $(id).dispatchEvent(new Event("input")); }};
        const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", {{ key: name, bubbles: true, cancelable: true }}));
        const until = async (test) => {{ for (let k = 0; k < 200 && !test(); k++) await new Promise((done) => setTimeout(done, 10)); }};
        let said;
        try {{ said = await (async () => {{ {steps} }})(); }} catch (error) {{ faults.push(String(error)); }}
        const node = document.createElement("pre");
        node.id = "said"; node.textContent = JSON.stringify({{ said, faults, hacked: window.hacked ?? null }});
        document.body.append(node);
    }});</script>"""
    tried = place.with_name(f"tried-{place.name}")
    tried.write_text(
        page.replace("<style>", f"{first}<style>", 1).replace("</body>", f"{last}</body>"), "utf-8"
    )
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"),
        *("--virtual-time-budget=5000", "--dump-dom", f"--user-data-dir={place.parent}/profile"),
        tried.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (found,) = re.findall(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    answer = json.loads(html.unescape(found))
    assert answer["faults"] == []
    assert answer["hacked"] is None
    return answer["said"]


@pytest.fixture(scope="module")
def images():
    return subject()


def written(folder, made, **options):
    page = render(*made, **options)
    return write(folder / "page", files_of(page, made[0]))


def test_directions_are_filtered_and_targets_opened(tmp_path, images):
    place = written(tmp_path, images)
    assert not (place.parent / "report").exists()
    said = browse(
        place,
        """
        const counts = { all: all("#cards > *").length };
        type("d-of", "0"); counts.one = all("#cards > *").length;
        type("d-find", "no such thing"); counts.none = all("#cards > *").length;
        type("d-find", ""); type("d-of", ""); type("d-sort", "a");
        counts.first = all("#cards > *")[0].id;
        counts.seen = [...new Set(all("#t-table tbody td").map((one) => one.textContent))].filter((one) => /^(true|false)$/.test(one)).sort().join();
        const drawn = all("#cards .picture")[0];
        counts.picture = drawn.style.backgroundImage.slice(0, 20) + drawn.style.width;
        type("t-class", "1"); counts.status = $("t-count").textContent;
        type("t-class", ""); type("t-find", "SUM"); counts.found = $("t-count").textContent;
        type("t-find", "");
        all("#t-table th button").find((one) => one.textContent === "target").click();
        counts.sorted = all("#t-table .open")[0].textContent.slice(0, 3);
        counts.pages = $("t-page").textContent; $("t-on").click(); counts.next = $("t-page").textContent;
        all("#t-table .open")[0].click();
        counts.open = $("detail").open; counts.title = $("detail-title").textContent.slice(0, 11);
        counts.sides = all("#detail .two h3").length; counts.influences = all("#detail .two .cell").length;
        key("ArrowRight"); counts.moved = $("detail-title").textContent.slice(0, 11);
        $("detail-close").click(); counts.closed = $("detail").open;
        key("j"); counts.focus = document.activeElement.id;
        const before = document.documentElement.dataset.theme; key("d");
        counts.theme = document.documentElement.dataset.theme !== before;
        counts.ink = getComputedStyle(document.body).color;
        return counts;
        """,
    )
    assert (said["all"], said["one"], said["none"]) == (6, 3, 0)
    assert said["first"] == "A1"
    assert said["seen"] == "false,true"
    assert said["picture"] == 'url("data:image/jpeg62px'
    assert said["status"] == said["found"] == "20 of 60 targets"
    assert (said["sorted"], said["pages"], said["next"]) == ("t0<", "1 to 25", "26 to 50")
    assert said["open"]
    assert (said["title"], said["moved"]) == ("Target t25<", "Target t26<")
    assert (said["sides"], said["influences"]) == (2, 32)
    assert not said["closed"]
    assert said["focus"] == "A1"
    assert said["theme"]
    assert said["ink"] == "rgb(230, 232, 236)"


def test_noise_below_zero_and_units_without_weight_are_on_no_side(tmp_path, images):
    place = written(tmp_path, images)
    start, data, rest = re.split(
        r'(?<=id="data">)(.*?)(?=</script>)', place.read_text(encoding="utf-8"), maxsplit=1
    )
    page = json.loads(data)
    for one, energy in zip(page["directions"], ([-0.5, -2.0], [3.0, -2.0]), strict=False):
        one |= {"about": "", "energy": energy, "shares": ["0.0 %", "0.0 %"]}
        one["heavy"] = [[0, 0.0], [1, 0.5], [2, -0.5]]
    text = json.dumps(page).replace("<", "\\u003c")
    place.write_text(start + text + rest, encoding="utf-8")
    said = browse(
        place,
        """
        const cell = (one) => [one.className.replace(/cell|still/g, "").trim(), one.textContent.slice(0, 1)];
        return ["A1", "A2"].map((code) => [$(code).querySelector("h3").textContent, [...$(code).querySelectorAll(".cell.still")].slice(0, 3).map(cell)]);
        """,
    )
    assert "weighed differently by the two" in said[0][0]
    assert "uses less" in said[1][0]
    assert [kind for kind, _ in said[0][1]] == ["", "plus", "minus"]
    assert [first for _, first in said[0][1]][1:] == ["▲", "▼"]
    assert said[0][1][0][1] not in "▲▼"


def test_a_large_page_has_its_pictures_and_datamodels_beside_it(tmp_path, images):
    place = written(tmp_path, images, largest=0)
    assert (place.parent / "report" / "targets-0000.js").is_file()
    said = browse(
        place,
        """
        all("#t-table .open")[0].click();
        await until(() => all("#detail .two .cell").length);
        const url = all("#cards .picture")[0].style.backgroundImage.slice(5, -2);
        const picture = new Image(); picture.src = url; await picture.decode();
        return [all("#detail .two .cell").length, url, picture.naturalWidth];
        """,
    )
    assert said == [32, "report/target-0000.jpg", 16 * 32]
    shutil.rmtree(place.parent / "report")
    lost = browse(
        place,
        """
        all("#t-table .open")[0].click();
        await until(() => document.querySelector("#detail .note"));
        return document.querySelector("#detail .note").textContent;
        """,
    )
    assert lost == "The folder 'report' beside this page is missing: keep both together."


def test_texts_are_shown_as_texts_and_nothing_is_wider_than_a_phone(tmp_path):
    place = written(tmp_path, subject("text"))
    said = browse(
        place,
        """
        all("#t-table .open")[0].click();
        return [all(".picture").length, all("#cards .cell.text").length > 0,
                document.querySelector("#detail blockquote").textContent.startsWith("text "),
                all("main *, header *").filter((node) => !node.closest(".scroll, pre, svg, .hidden") && node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML.slice(0, 120))];
        """,
        width=500,
    )
    assert said == [0, True, True, []]


def test_images_with_texts_are_shown_with_the_text_below(tmp_path):
    made = subject("both")
    place = written(tmp_path, made)
    said = browse(
        place,
        """
        const cells = all(".cell.both");
        const below = cells.every((one) => {
            const [drawn, text] = one.children;
            return drawn.className.startsWith("picture") && /^([▲▼] )?text /.test(text.textContent)
                && text.getBoundingClientRect().top >= drawn.getBoundingClientRect().bottom;
        });
        const inTable = all("#t-table tbody .picture").length;
        all("#t-table .open")[0].click();
        await until(() => $("detail").open);
        const inside = $("detail").querySelectorAll(".picture, blockquote");
        return [cells.length > 20, below, all(".cell.text").length, inTable > 0, [...inside].slice(0, 2).map((one) => one.tagName)];
        """,
    )
    assert said == [True, True, 0, True, ["SPAN", "BLOCKQUOTE"]]


def test_every_control_has_a_name_and_text_has_contrast(tmp_path, images):
    place = written(tmp_path, images)
    said = browse(
        place,
        """
        const luminance = (color) => {
          const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ratio = (x, y) => { const [p, q] = [luminance(x), luminance(y)].sort((s, t) => t - s); return (p + 0.05) / (q + 0.05); };
        const ratios = {};
        for (const theme of ["light", "dark"]) {
          document.documentElement.dataset.theme = theme;
          for (const name of ["--ink", "--soft", "--a", "--b", "--yes"]) for (const on of ["--paper", "--wash"]) {
            const node = document.createElement("i"); node.style.color = `var(${name})`; node.style.backgroundColor = `var(${on})`;
            document.body.append(node); const look = getComputedStyle(node);
            ratios[`${theme} ${name} on ${on}`] = ratio(look.color, look.backgroundColor); node.remove();
          }
        }
        const nameless = all("button, input, select, [role=img]").filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim() || node.closest("label"))).map((node) => node.outerHTML.slice(0, 80));
        const ids = all("[id]").map((node) => node.id);
        return { ratios, nameless, twice: ids.filter((id, k) => ids.indexOf(id) !== k) };
        """,
    )
    assert min(said["ratios"].values()) >= 4.5, said["ratios"]
    assert said["nameless"] == []
    assert said["twice"] == []
