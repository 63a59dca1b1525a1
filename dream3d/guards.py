"""What a run watches for, so that nobody waits for nothing: a vanishing object, too little memory, a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, final

import pytorch_lightning as pl
import torch

from dream3d.checks import Dream3DError, RunError
from dream3d.runs import RunFolder
from dream3d.stage import Stage, StageModule

LOOK_EVERY = 10
"""Steps between two looks at the opacity: reading it waits for the device."""
EMPTY, LOOKS = 0.01, 3
"""Mean opacity under which pictures count as empty, and how many looks in a row make it sure."""
MEANS = 2
"""Running means that Adam keeps of each number."""


@final
class Collapse(pl.Callback):
    """Warns once, early, where nothing is left to be seen; the run goes on, since some objects come back.

    Args:
        run: whose log and run.json take the warning, for the report.
        stage: its name.
        tell: receives the line for the user.
    """

    def __init__(self, run: RunFolder, stage: str, tell: Callable[[str], None]) -> None:
        self.run = run
        self.stage = stage
        self.tell = tell
        self._low = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        if module.step_index % LOOK_EVERY or self._low >= LOOKS:
            return
        self._low = self._low + 1 if float(module.last["opacity"]) < EMPTY else 0
        if self._low == LOOKS:
            self._warn(
                f"opacity fell under {EMPTY:.0%} by step {module.step_index} of stage {self.stage}: the pictures are "
                "empty. Stop with Ctrl-C; then lower the learning rate or the weight of the sparsity regulariser."
            )

    def _warn(self, line: str) -> None:
        said = self.run.state().get("warnings", []) if self.run.has_state() else []
        self.run.update(warnings=[*said, line] if line not in said else said)
        self.run.log(f"warning: {line}")
        self.tell(f"warning: {line}")


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def least_memory(stage: Stage, representation: torch.nn.Module) -> tuple[int, int]:
    """Bytes that a stage holds beside what the pictures of a step take: all of it, and what is not there yet.

    The prior's weights; the parameters with their gradients and running means. Critics come on top.
    """
    trained = bytes_of(p for p in representation.parameters() if p.requires_grad)
    held = bytes_of(stage.prior.parameters()) + bytes_of(representation.parameters())
    return held + (1 + MEANS) * trained, (1 + MEANS) * trained


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had now, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def memory_line(name: str, stage: Stage, representation: torch.nn.Module, device: torch.device) -> str:
    """What a stage will need at least, for the log; called before the prior moves to the device.

    Raises:
        RunError: that is more than there is.
    """
    whole, more = least_memory(stage, representation)
    free = free_memory(device)
    coming = whole if device.type == "cuda" and not _is_on(stage.prior, device) else more
    if free is not None and coming > free:
        raise RunError(
            f"out of memory before the first step: stage {name} needs {coming / 1e9:.1f} GB and more, "
            f"{free / 1e9:.1f} GB are free. Take a smaller --prior or representation, or another --device."
        )
    there = "" if free is None else f", {free / 1e9:.1f} GB are free"
    return f"memory: {whole / 1e9:.2f} GB for weights and optimiser, and the pictures of a step{there}"


def _is_on(module: torch.nn.Module, device: torch.device) -> bool:
    return all(p.device.type == device.type for p in module.parameters())


def in_words(error: BaseException, run: RunFolder, at: tuple[str, Stage] | None) -> BaseException:
    """Out of memory, or no room on the disk, as one line with the cure; everything else as it is.

    Args:
        error: what happened.
        run: where.
        at: name of the stage that was trained, and the stage; None outside training.
    """
    again = f"dream3d resume {run.path}"
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt(f"interrupted; go on with: {again}")
    if isinstance(error, Dream3DError):
        return error
    no_memory = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError))
    if no_memory or (isinstance(error, RuntimeError) and "allocate" in str(error)):
        first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        where = f" in stage {at[0]}" if at else ""
        return RunError(f"out of memory{where}: {first}. Go on with less: {again} {' '.join(_less(at))}".rstrip())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"disk full: no room in {run.path}. Free some, then: {again}")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM) and _ours(error, run):
        return RunError(f"cannot write {error.filename}: {os.strerror(error.errno)}. Allow it, then: {again}")
    return error


def _ours(error: OSError, run: RunFolder) -> bool:
    return str(error.filename or "").startswith(str(run.path))


def _less(at: tuple[str, Stage] | None) -> list[str]:
    """The flags that take less memory, by how much they take off."""
    if at is None:
        return ["--export.texture_size=512", "--export.resolution=64"]
    name, stage = at
    flags = [f"--stages.{name}.batch={stage.views}"] if stage.batch > stage.views else []
    size = getattr(stage.cameras, "size", None)
    if isinstance(size, int) and size >= 32:
        flags.append(f"--stages.{name}.cameras.size={size // 2}")
    samples = getattr(stage.renderer, "samples", None)
    if isinstance(samples, int) and samples >= 16:
        flags.append(f"--stages.{name}.renderer.samples={samples // 2}")
    return flags
