"""The loop itself, on a task of two numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dream3d.checks import InputError, RunFolderError
from dream3d.prior_training.train import Length, Report, Settings, Task, Trainer, measured_peak, run


class Line(Task):
    """Fits a line through noisy points of y = 2 x - 1."""

    config: dict[str, Any] = {"slope": 2}

    def network(self) -> nn.Module:
        return nn.Linear(1, 1)

    def loss(self, net: Callable[..., Any], count: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(count, 1, generator=generator)
        noise = 0.01 * torch.randn(count, 1, generator=generator)
        return (net(x) - (2 * x - 1 + noise)).square().mean()

    def facts(self, net: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        return {"error": float(self.loss(net, 256, generator))}


def _trainer(steps: int, **changes: Any) -> Trainer:
    return Trainer(Line(), replace(Settings(Length(steps=steps), batch=8, lr=0.05, warmup=10), **changes))


def test_it_learns_and_measures_the_average(tmp_path: Path) -> None:
    trainer, lines = _trainer(400), []
    run(trainer, tmp_path, Report(lines.append, seconds=0))
    assert trainer.facts["error"] < 1e-2
    weight, bias = (float(p.detach()) for p in trainer.ema.parameters())
    assert weight == pytest.approx(2, abs=0.05) and bias == pytest.approx(-1, abs=0.05)
    assert trainer.seen == 3200 and len(lines) == 400
    assert lines[-1].startswith("step 400  samples 3200  loss 0.0") and "samples/s" in lines[-1]


def test_resumed_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    whole = _trainer(6)
    losses = [whole.step() for _ in range(6)]
    first = _trainer(6)
    assert [first.step() for _ in range(2)] == losses[:2]
    first.save(tmp_path / "state.pt")
    second, report = _trainer(6), Report(lambda _: None, seconds=1e9)
    run(second, tmp_path, report)
    assert report.losses == losses[2:]
    assert second.seen == whole.seen == 48
    for mine, theirs in zip(second.ema.parameters(), whole.ema.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_stopped_training_is_kept_unmeasured(tmp_path: Path) -> None:
    trainer = _trainer(100)
    run(trainer, tmp_path, Report(lambda _: None), keep_going=lambda: trainer.step_count < 3)
    again = _trainer(100)
    again.restore(tmp_path / "state.pt")
    assert again.step_count == 3 and not trainer.facts


def test_a_training_begins_with_another_ones_average(tmp_path: Path) -> None:
    first, chain = _trainer(30), []
    run(first, tmp_path, Report(lambda _: None))
    for _ in range(2):  # a training that began from one that began from the first
        second = _trainer(30)
        second.begin_from(tmp_path / "state.pt")
        for mine, theirs in zip(second.net.parameters(), first.ema.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        assert second.step_count == second.seen == 0
        second.save(tmp_path / "state.pt")
        chain.append(second.before["samples"])
    assert chain == [240, 240] and second.before["minutes"] > 0
    again = _trainer(30)
    again.restore(tmp_path / "state.pt")
    assert again.before == second.before


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"no checkpoint")
    with pytest.raises(RunFolderError, match="missing or damaged"):
        run(_trainer(1), tmp_path, Report(lambda _: None))
    torch.save({"ema": {"other": torch.zeros(1)}, "seen": 1, "minutes": 1.0}, tmp_path / "state.pt")
    with pytest.raises(RunFolderError, match="does not fit this network"):
        _trainer(1).begin_from(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("rate", "expected"), [("cosine", {0.5: 0.51, 1.0: 0.02}), ("trapezoid", {0.5: 1.0, 0.8: 0.51, 1.0: 0.02})]
)
def test_the_learning_rate_rises_and_ends_near_zero(rate: str, expected: dict[float, float]) -> None:
    trainer = _trainer(1000, rate=rate)
    assert trainer.rate() == pytest.approx(0.1)
    for done, height in expected.items():
        trainer.step_count = round(1000 * done)
        assert trainer.rate() == pytest.approx(height)


def test_what_is_swift_moves_four_times_as_far() -> None:
    class Swift(Line):
        swift = ("bias",)

    trainer = Trainer(Swift(), Settings(Length(steps=1), batch=8, lr=0.01, warmup=1, decay=0.0))
    before = {name: p.detach().clone() for name, p in trainer.net.named_parameters()}
    trainer.step()
    moved = {name: float((p.detach() - before[name]).abs()) for name, p in trainer.net.named_parameters()}
    assert moved["bias"] == pytest.approx(4 * moved["weight"], rel=1e-3)  # Adam's first step is the rate itself


def test_length_is_minutes_or_steps() -> None:
    assert Length(minutes=2).progress(60, 7) == pytest.approx(0.5)
    with pytest.raises(InputError, match="either minutes or steps"):
        Length(minutes=1, steps=1)


def test_the_report_compares_with_the_machine() -> None:
    """1000 pictures in 2 s at 1 GFLOP, three times that with the way back, of 3 TFLOP/s: a half."""
    trainer = _trainer(10, batch=500)
    trainer.step_count, trainer.seen = 2, 1000
    report = Report(lambda _: None, peak=3e12, cost=1e9, losses=[torch.tensor(1.0), torch.tensor(3.0)])
    line = report.line(trainer, 2.0)
    assert "loss 2.0000" in line and "500 samples/s" in line and "50 % of peak" in line and not report.losses


def test_the_peak_is_measured() -> None:
    assert measured_peak("cpu", False) > 1e8
