"""Warnings come when there is a reason, and only then."""

from __future__ import annotations

from pathlib import Path

from dream3d.report.gather import Curves, Gathered
from dream3d.report.measured import Edges
from dream3d.report.remarks import remarks


def run(**parts: object) -> Gathered:
    return Gathered(Path("outputs/owl/sds@1"), {"status": "done"}, **parts)  # type: ignore[arg-type]


def curves(**series: list[float | None]) -> Curves:
    count = len(next(iter(series.values())))
    return Curves(["nerf"] * count, [10 * i for i in range(1, count + 1)], series)


def test_a_good_run_has_none() -> None:
    series = curves(loss=[3.0, 2.0, 1.0], opacity=[0.2, 0.3, 0.3], grad_norm=[5.0, 4.0, 1.0])
    looks = [{"step": i, "cosines": {"residual · text": 0.6}} for i in range(4)]
    checks = {"watertight": True, "components": 1, "uv_use": 0.5}
    judged = {"assets": [{"janus": False, "top1": 1.0}]}
    assert remarks(run(curves=series, microscope=looks, checks=checks, judged=judged), Edges(0, 0)) == []


def test_opacity() -> None:
    assert remarks(run(curves=curves(opacity=[0.2, 0.009, 0.001])), None) == [
        "opacity fell under 1 % at step 20: the field is empty; lower the sparsity or the rate."
    ]
    full = curves(opacity=[0.2, 0.95])
    assert remarks(run(curves=full), None) == []  # a picture is opaque by nature
    assert "fills the picture" in remarks(run(curves=full, asset_path=Path("a.glb")), None)[0]


def test_numbers_that_are_none_and_gradients_that_spike() -> None:
    told = remarks(run(curves=curves(loss=[1.0, None, None, 2.0], grad_norm=[1.0, 1.0, 2.0, 500.0])), None)
    assert told[0] == "loss was not finite at step 20 and 1 more."
    assert told[1].startswith("the gradient's norm rose to 500, 250 times its median")
    assert remarks(run(curves=curves(critic_loss=[None, None])), None) == []


def test_a_prompt_without_a_say() -> None:
    looks = [{"step": i, "cosines": {"residual · text": 0.01}} for i in range(3)]
    assert "hardly a say" in remarks(run(microscope=looks), None)[0]
    assert remarks(run(microscope=looks[:2]), None) == []


def test_the_mesh_the_validator_and_the_judge() -> None:
    checks = {"watertight": False, "components": 3, "uv_use": 0.1}
    judged = {"assets": [{"janus": True, "top1": 0, "looks_like": "mug"}]}
    told = remarks(run(checks=checks, judged=judged, validator={"issues": {"numErrors": 2}}), Edges(2, 5))
    assert [line.split()[-1] for line in told[:1]] == ["holes."] and len(told) == 7
    assert told[1].startswith("5 edges") and told[2] == "the surface is in 3 pieces."
    assert "validator finds 2 errors" in told[4] and "Janus" in told[5] and "looks like mug" in told[6]
