"""Whole runs on a prior that is a formula: the folder they leave, and how they end."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d import __version__
from dream3d.checks import Dream3DError, InputError, RunError, RunFolderError
from dream3d.export import Export
from dream3d.guidance import Objective
from dream3d.pipeline import Interrupted
from dream3d.priors import Gaussian, Zero123
from dream3d.regularizers import Opaque, Sparsity
from dream3d.representations import Field, Representation
from dream3d.runs import RunFolder, find
from dream3d.stage import Adam
from tests.tiny_runs import Raises, fail, pipeline, press, small_export, small_field, stage


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A finished run of two stages and what it said."""
    import contextlib
    import io

    said, out = io.StringIO(), tmp_path_factory.mktemp("outputs")
    stages = {"coarse": stage(steps=4), "fine": stage(steps=3)}
    with contextlib.redirect_stdout(said):
        made = pipeline(out, stages=stages, negative="blurry", seed=3, quiet=False, export=small_export())
        made.resolved = "prompt: a teddy bear\n"
        path = made.run()
    return RunFolder(path), said.getvalue()


def test_the_folder_of_a_run(done: tuple[RunFolder, str]) -> None:
    run, _ = done
    files = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if not p.is_dir()}
    progress = {f"save/progress/step{step:06d}.jpg" for step in (0, 2, 4, 6, 7)}
    looks = {f"save/microscope/step{step:06d}.{end}" for step in (0, 2, 4, 6, 7) for end in ("jpg", "json")}
    pictures = {f"save/final/{name}.png" for name in ("front", "left", "back", "right", "views")}
    asset = {"export/a-teddy-bear.glb", "export/check.json"}
    textures = {f"export/textures/{name}.png" for name in ("basecolor", "orm", "normal")}
    films = {"save/progress.mp4", "save/final/turntable.mp4"}
    ckpts = {"ckpts/last.ckpt", "ckpts/step000004.ckpt", "ckpts/step000007.ckpt"}
    texts = {"run.json", "config.yaml", "command.txt", "log.txt", "metrics.jsonl", "metrics.csv", "report.html"}
    assert files == progress | looks | pictures | asset | textures | films | ckpts | texts
    assert run.last_checkpoint().name == "step000007.ckpt"
    assert find("latest", run.path.parents[1]).path == run.path.resolve()


def test_run_json(done: tuple[RunFolder, str]) -> None:
    run, _ = done
    state = run.state()
    assert state["status"] == "done" and state["prompt"] == "a teddy bear" and state["negative"] == "blurry"
    assert state["seed"] == 3 and state["device"] == "cpu" and state["pid"] == os.getpid()
    assert state["versions"]["dream3d"] == __version__ and state["versions"]["torch"] == torch.__version__
    assert state["steps"] == {"coarse": 4, "fine": 3} and state["seconds"] > 0 and state["peak_memory_gb"] > 0.01
    assert state["forwards_per_step"] == {"coarse": 2, "fine": 2}  # two views, one condition
    assert "export/a-teddy-bear.glb" in state["files"]
    assert all((run.path / name).is_file() for name in state["files"])


def test_the_first_three_lines(done: tuple[RunFolder, str]) -> None:
    run, said = done
    lines = said.splitlines()
    assert re.fullmatch(rf"dream3d {re.escape(__version__)} · device cpu · kernels \S.*", lines[0])
    assert lines[1] == "prior Gaussian (a formula, no network, Apache-2.0)"
    assert lines[2] == f"run {run.path}"
    assert lines[-1].startswith("done in ") and lines[-1].endswith(str(run.path))
    assert "GPU available" not in said and "Trainer" not in said


def test_the_asset_tells_where_it_came_from(done: tuple[RunFolder, str]) -> None:
    run, _ = done
    data = (run.export / "a-teddy-bear.glb").read_bytes()
    extras = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["asset"]["extras"]
    assert extras["prompt"] == "a teddy bear" and extras["seed"] == 3 and extras["objectives"] == ["SDS", "SDS"]
    assert extras["priors"] == [{"name": "Gaussian", "licence": "Apache-2.0"}]
    assert str(run.path) not in json.dumps(extras)


def test_same_seed_same_files_other_seed_other_object(tmp_path: Path) -> None:
    runs = [pipeline(tmp_path / str(i), seed=seed, export=small_export()).run() for i, seed in enumerate((0, 0, 1))]
    for name in ("export/a-teddy-bear.glb", "save/final/front.png", "save/progress/step000004.jpg"):
        one, two, other = ((run / name).read_bytes() for run in runs)
        assert one == two != other, name


def test_the_next_stage_starts_from_the_one_before(tmp_path: Path) -> None:
    starts: list[Representation | None] = []

    def build(start: Representation | None) -> Field:
        starts.append(start)
        made = small_field(start)
        if start is not None:
            table = start.state_dict()["encoding.table"]
            assert bool(table.abs().max() > 0.01) and torch.equal(made.state_dict()["encoding.table"], table)
        return made

    still = stage(representation=build, optimizer=Adam(lr=0.0))
    run = RunFolder(
        pipeline(tmp_path, stages={"a": stage(representation=build, optimizer=Adam(lr=0.1)), "b": still}).run()
    )
    assert starts[0] is None and isinstance(starts[1], Field) and len(starts) == 2
    tables = [
        torch.load(run.ckpts / f"step{step:06d}.ckpt", weights_only=True)["representation"]["encoding.table"]
        for step in (4, 8)
    ]
    assert torch.equal(*tables)


def test_restore_gives_what_was_trained(tmp_path: Path) -> None:
    made = pipeline(tmp_path)
    run = RunFolder(made.run())
    restored = pipeline(tmp_path).restore(run).state_dict()
    saved = torch.load(run.last_checkpoint(), weights_only=True)["representation"]
    assert all(torch.equal(restored[name], saved[name]) for name in saved)


def test_restore_says_what_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = pipeline(tmp_path, checkpoint_every=2, stages={"nerf": stage(steps=5)})
    run = RunFolder(made.run())
    with pytest.raises(RunFolderError, match="of stage 'nerf', which config.yaml does not have"):
        pipeline(tmp_path, stages={"other": stage()}).restore(run)
    wider = stage(representation=lambda start: Field(start, levels=2))
    with pytest.raises(RunFolderError, match="does not fit config.yaml"):
        pipeline(tmp_path, stages={"nerf": wider}).restore(run)
    last = run.last_checkpoint()
    last.write_bytes(last.read_bytes()[:1000])
    older = torch.load(run.ckpts / "step000004.ckpt", weights_only=True)["representation"]["encoding.table"]
    assert torch.equal(made.restore(run).state_dict()["encoding.table"], older)
    line = "step000005.ckpt is damaged (unexpected end); step000004.ckpt is used instead."
    assert [record.getMessage() for record in caplog.records] == [line]


def test_a_checkpoint_that_is_code_is_not_run(tmp_path: Path) -> None:
    made = pipeline(tmp_path)
    run = RunFolder(made.run())

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"stage": Evil()}, run.last_checkpoint())
    with pytest.raises(RunFolderError):
        made.restore(run)
    assert not (tmp_path / "evil").exists()


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    bad = stage(objective=Raises(3, fail(ValueError("the reason\nand more"))))
    with pytest.raises(ValueError, match="the reason") as caught:
        pipeline(tmp_path, stages={"nerf": bad}).run()
    assert caught.value.__cause__ is not caught.value
    run = find("latest", tmp_path)
    assert run.state()["status"] == "failed" and run.state()["reason"] == "the reason" and run.state()["seconds"] > 0
    assert torch.load(run.last_checkpoint(), weights_only=True)["step"] == 2
    assert "stopped: the reason" in (run.path / "log.txt").read_text()


def test_out_of_memory_names_the_cure(tmp_path: Path) -> None:
    bad = stage(objective=Raises(2, lambda: torch.empty(1 << 55)))
    with pytest.raises(RunError, match=r"^out of memory in stage nerf: .*") as caught:
        pipeline(tmp_path, stages={"nerf": bad}).run()
    run = find("latest", tmp_path).path
    cure = f"Go on with less: dream3d resume {run} --stages.nerf.batch=1 --stages.nerf.renderer.samples=12"
    assert str(caught.value).endswith(cure)
    assert find("latest", tmp_path).state()["status"] == "failed"


def test_no_surface_is_no_asset(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no surface at iso 1e"):
        pipeline(tmp_path, export=Export(iso=1e9, resolution=16)).run()
    run = find("latest", tmp_path)
    assert run.state()["status"] == "failed" and list(run.export.iterdir()) == []
    assert (run.final / "front.png").is_file()


def test_ctrl_c_once_leaves_checkpoint_and_asset(tmp_path: Path) -> None:
    stages = {"a": stage(steps=50, objective=Raises(3, press())), "b": stage()}
    with pytest.raises(Interrupted) as caught:
        pipeline(tmp_path, stages=stages, export=small_export()).run()
    assert caught.value.exit_code == 130
    run = find("latest", tmp_path)
    assert run.state()["status"] == "interrupted"
    assert torch.load(run.last_checkpoint(), weights_only=True)["step"] == 3
    assert (run.export / "a-teddy-bear.glb").is_file() and (run.final / "turntable.mp4").is_file()


def test_ctrl_c_twice_stops_at_once(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    stages = {"a": stage(steps=50, objective=Raises(3, press(2)))}
    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path, stages=stages, export=small_export()).run()
    run = find("latest", tmp_path)
    assert run.state()["status"] == "interrupted" and list(run.export.iterdir()) == []
    assert torch.load(run.last_checkpoint(), weights_only=True)["step"] == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_before_there_is_a_surface(tmp_path: Path) -> None:
    stages = {"a": stage(steps=50, objective=Raises(3, press()))}
    with pytest.raises(Interrupted, match="interrupted at step 3; no asset yet: no surface at iso"):
        pipeline(tmp_path, stages=stages, export=Export(iso=1e9, resolution=16)).run()
    assert find("latest", tmp_path).state()["status"] == "interrupted"


def test_metrics_of_stages_that_report_different_things(tmp_path: Path) -> None:
    stages = {"a": stage(regularizers={"x": Sparsity()}), "b": stage(regularizers={"y": Opaque(), "z": Sparsity()})}
    run = RunFolder(pipeline(tmp_path, stages=stages).run())
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    with (run.path / "metrics.csv").open(newline="") as file:
        for row, line in zip(csv.DictReader(file), lines, strict=True):
            assert {name: cell for name, cell in row.items() if cell} == {name: str(v) for name, v in line.items()}


def test_metrics_that_are_not_finite_are_valid_json(tmp_path: Path) -> None:
    class Nan(Objective):
        def residual(self, prior: Any, x: Any) -> torch.Tensor:
            return torch.full_like(x.z, float("nan"))

    run = RunFolder(pipeline(tmp_path, stages={"a": stage(objective=Nan(), steps=1)}).run())
    line = json.loads((run.path / "metrics.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert line["loss"] is None and line["grad_norm"] is None and line["opacity"] > 0


def test_only_the_ends_of_earlier_stages_are_kept(tmp_path: Path) -> None:
    stages = {"a": stage(steps=7), "b": stage(steps=7)}
    run = RunFolder(pipeline(tmp_path, stages=stages, checkpoint_every=2).run())
    kept = sorted(path.stem for path in run.ckpts.glob("step*"))
    assert kept == ["step000007", "step000011", "step000013", "step000014"]


def test_seeds_beyond_32_bits_count(tmp_path: Path) -> None:
    one, two = (pipeline(tmp_path / str(s), seed=s).run() / "save/final/front.png" for s in (0, 2**32))
    assert one.read_bytes() != two.read_bytes()


def test_stages_draw_their_own_numbers(tmp_path: Path) -> None:
    drawn: list[float] = []

    class Spy(Objective):
        def residual(self, prior: Any, x: Any) -> torch.Tensor:
            drawn.append(x.eps.sum().item())
            return 0 * x.z

    pipeline(tmp_path, stages={name: stage(objective=Spy()) for name in "ab"}, preview_every=0).run()
    assert len(set(drawn)) == len(drawn) == 8


def test_the_device_is_kept_after_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning moves a module to the CPU when it is done; what follows is drawn on the run's device."""
    moves: list[str] = []
    monkeypatch.setattr("dream3d.pipeline.write_report", lambda run: None)  # its judge moves as well
    for name in ("cpu", "to"):
        plain = getattr(torch.nn.Module, name)

        def move(self: Any, *args: Any, name: str = name, plain: Any = plain) -> Any:
            moves.append(name)
            return plain(self, *args)

        monkeypatch.setattr(torch.nn.Module, name, move)
    pipeline(tmp_path).run()
    assert moves[-2:] == ["cpu", "to"]


@pytest.mark.parametrize(
    ("device", "code"),
    [
        ("tpu", 2),
        ("cuda:x", 2),
        ("cuda:999", 3),
    ],
)
def test_a_device_that_is_not_there(tmp_path: Path, device: str, code: int) -> None:
    with pytest.raises(Dream3DError, match=device) as caught:
        pipeline(tmp_path, device=device)
    assert caught.value.exit_code == code


def test_a_negative_prompt_to_a_prior_without_one(tmp_path: Path) -> None:
    deaf = Gaussian()
    deaf.reads_negative = False
    with pytest.raises(InputError, match=r"negative: Gaussian reads no texts. Leave it out, or take a prior that"):
        pipeline(tmp_path, negative="blurry", stages={"a": stage(prior=deaf)})
    assert list(tmp_path.iterdir()) == []
    pipeline(tmp_path, negative="blurry", stages={"a": stage(prior=deaf), "b": stage()})
    assert not Zero123.reads_negative


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"prompt": " "}, "the prompt is empty."),
        ({"stages": {}}, "stages: expected one or more, got none."),
        ({"seed": -1}, "seed must be 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be 1 or more (got 0)."),
        ({"picture_size": 5}, "picture_size must be 16–4096 (got 5)."),
    ],
)
def test_bad_values_are_refused(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        pipeline(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []
