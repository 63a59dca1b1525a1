"""The report as a browser reads it: its structure, its data, and that it asks nobody for anything."""

from __future__ import annotations

import base64
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dream3d.evaluation.judge import Judge
from dream3d.report import write_comparison, write_report
from dream3d.report.comparison import flattened
from dream3d.report.elements import joined, pairs, section, tag
from dream3d.report.sections import duration, picked
from dream3d.runs import RunFolder

from .conftest import PROMPT, make

VOID = {"meta", "img", "input"}
CLOSED_BY_US = {
    "html",
    "head",
    "body",
    "main",
    "section",
    "figure",
    "script",
    "style",
    "table",
    "div",
    "video",
    "canvas",
}


class Page(html.parser.HTMLParser):
    """Elements with their attributes and texts; every element must be closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.elements[index][2].append(data)

    def all(self, tag: str, **having: str) -> list[tuple[dict[str, str], str]]:
        found = [(attributes, "".join(texts)) for name, attributes, texts in self.elements if name == tag]
        return [(a, text) for a, text in found if all(a.get(k.replace("_", "-")) == v for k, v in having.items())]

    def data(self) -> dict[str, Any]:
        return json.loads(self.all("script", id="data")[0][1])


@pytest.fixture
def page(run: RunFolder, reading_judge: Judge) -> Page:
    return Page(write_report(run, judge=reading_judge).read_text(encoding="utf-8"))


def test_nothing_is_asked_of_anybody(page: Page) -> None:
    for name, attributes, _ in page.elements:
        for key in ("src", "href", "poster", "srcset", "action"):
            assert attributes.get(key, "data:").startswith("data:"), (name, attributes)
        assert name not in ("link", "iframe", "object", "embed", "base", "form")
    code = "".join(text for _, text in page.all("script") + page.all("style"))
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(|@import|WebSocket|url\(", code)
    (policy,) = [a["content"] for a, _ in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_a_prompt_is_text_wherever_it_stands(page: Page) -> None:
    assert page.all("h1")[0][1] == PROMPT
    assert page.all("title")[0][1].startswith(PROMPT)
    assert len(page.all("script")) == 3  # data, asset, program: none that came from the prompt
    assert not any(text.strip().startswith("alert(") for _, text in page.all("script"))


def test_what_the_run_was(page: Page) -> None:
    rows = [text for _, text in page.all("tr")]
    expected = {
        "seed": "3",
        "objective": "SDS, ISM",
        "representation": "Field",
        "prior": "builtin (Apache-2.0 (weights))",
        "steps": "coarse 20, fine 10",
        "time": "2 min 29 s",
        "peak memory": "1.25 GB",
        "faces": "10",
        "holes": "1",
        "watertight": "no",
    }
    assert [f"{name}{value}" for name, value in expected.items() if f"{name}{value}" not in rows] == []
    command = page.all("pre", id="command")[0][1].splitlines()
    assert command[0] == "dream3d generate 'a red chair' --seed 3"
    assert re.fullmatch(r"dream3d generate --config outputs/a-red-chair/sds@[\d-]+/config\.yaml", command[1])


def test_sides_carry_their_view_prompts(page: Page) -> None:
    captions = [text for _, text in page.all("figcaption")]
    for side, words in (("front", "front view"), ("left", "side view"), ("back", "back view"), ("right", "side view")):
        assert f"{side}: {PROMPT}, {words}" in captions
    (film,) = page.all("video")
    assert film[0]["src"].startswith("data:video/mp4;base64,")
    assert {"step 0", "step 15", "step 30", "basecolor", "roughness", "metallic", "occlusion"} <= set(captions)


def test_curves_are_those_of_the_table(run: RunFolder, reading_judge: Judge) -> None:
    run.update(prompt="a ball")
    page = Page(write_report(run, judge=reading_judge).read_text(encoding="utf-8"))
    charts = {c["title"]: c["lines"] for c in page.data()["charts"] if c["group"] == "metrics"}
    assert list(charts)[:5] == ["loss", "opacity", "grad_norm", "matcher", "matched views"]
    assert charts["loss"] == [{"label": "loss", "x": [10, 20, 30], "y": [4.5, None, 1.5]}]
    assert charts["opacity"][0]["y"] == [0.2, 0.005, 0.25]
    assert charts["sparsity"][0]["y"] == [1.5, 1.0, None]
    assert charts["matched views"][0] == {"label": "matched views", "x": [0, 15, 30], "y": [1.0, 0.0, 0.0]}
    names = {c["title"]: c["lines"] for c in page.data()["charts"] if c["group"] == "microscope"}
    assert names["cosines between the terms"] == [{"label": "residual · text", "x": [0], "y": [0.75]}]
    assert {a["data-charts"] for a, _ in page.all("div") if "data-charts" in a} == {"metrics", "microscope"}


def test_the_asset_is_inside_to_the_byte(page: Page, run: RunFolder) -> None:
    (canvas,) = [a for a, _ in page.all("canvas")]
    (asset,) = page.all("script", id=canvas["data-asset"])
    assert base64.b64decode(asset[1]) == (run.export / "chair.glb").read_bytes()


def test_warnings_are_in_words(page: Page) -> None:
    told = [text for _, text in page.all("li")]
    assert "opacity fell under 1 % at step 20 and came back." in told
    assert "loss was not finite at step 20." in told
    assert "the surface has 1 hole." in told
    assert "the microscope saw nothing at step 15: it was dark." in told


def test_the_same_folder_gives_the_same_page_of_bounded_size(run: RunFolder, reading_judge: Judge) -> None:
    first = write_report(run, judge=reading_judge).read_bytes()
    assert write_report(run, judge=reading_judge).read_bytes() == first
    parts = sum(len(p.read_bytes()) for p in run.path.rglob("*") if p.is_file() and p.name != "report.html")
    assert len(first) < 1.4 * parts + 60_000
    assert str(run.path.parents[2]).encode() not in first  # where it lies on this machine is nobody's business


def test_a_bare_folder_has_a_page_too(tmp_path: Path, reading_judge: Judge) -> None:
    run = RunFolder.create(tmp_path, "owl", "sds")
    run.update(status="failed", reason="out of memory", prompt="an owl")
    page = Page(write_report(run, judge=reading_judge).read_text())
    assert page.all("h1")[0][1] == "an owl" and page.data() == {"charts": []}
    assert [text for _, text in page.all("li")] == ["the run failed: out of memory"]
    assert not page.all("canvas") and not page.all("img")


def test_runs_side_by_side(tmp_path: Path, reading_judge: Judge) -> None:
    runs = [make(tmp_path / "outputs", prompt="a red chair", scale=s, lid=s > 7.5) for s in (7.5, 100.0)]
    page = Page(write_comparison(runs, tmp_path / "c.html", judge=reading_judge).read_text(encoding="utf-8"))
    assets = [a["data-asset"] for a, _ in page.all("canvas")]
    assert len(assets) == 2
    for name, run in zip(assets, runs, strict=True):
        assert base64.b64decode(page.all("script", id=name)[0][1]) == (run.export / "chair.glb").read_bytes()
    assert len(page.all("div", data_mode="")) == 1  # one set of controls for all
    charts = {c["title"]: c["lines"] for c in page.data()["charts"]}
    assert [line["label"] for line in charts["loss"]] == ["1: sds, a red chair, seed 3", "2: sds, a red chair, seed 3"]
    rows = [text for _, text in page.all("tr") if text.startswith("stages.coarse")]
    assert rows == ["stages.coarse.objective.guider.scale7.5100.0"]
    holes = [text for _, text in page.all("tr") if text.startswith("holes")]
    assert holes == ["holes1", "holes0"]


def test_configurations_become_dotted_keys() -> None:
    tree = {"a": {"class_path": "CFG", "init_args": {"scale": 2}}, "b": [1, 2], "c": None}
    assert flattened(tree) == {"a": '"CFG"', "a.scale": "2", "b": "[1, 2]", "c": "null"}


def test_markup_escapes_what_it_has_not_made() -> None:
    assert tag("p", "<b>", tag("b", 1), None, ["&"], title='"') == '<p title="&quot;">&lt;b&gt;<b>1</b>&amp;</p>'
    assert tag("input", checked=True, hidden=False, data_x="") == '<input checked data-x="">'
    assert section("nothing", None, joined([])) is None and pairs([("a", None), ("b", "")]) is None


def test_times_and_names_are_short() -> None:
    assert [duration(s) for s in (8.06, 59.96, 149.0, 7500)] == ["8.1 s", "60.0 s", "2 min 29 s", "2 h 05 min"]
    assert picked({"class_path": "dream3d.guidance.sds.SDS"}) == "SDS" and picked("ISM") == "ISM" and picked(None) == ""
