"""Runs the stages in order, hands the result on, owns the run folder."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import pytorch_lightning as pl
import torch

from dream3d.callbacks import (
    Checkpoints,
    Interrupt,
    LiveLine,
    Metrics,
    Previews,
    Seeds,
    TimeLimit,
    memory_gb,
    rewind,
)
from dream3d.checkpoints import newest, number_of, stored
from dream3d.checks import Dream3DError, InputError, RunFolderError, in_range
from dream3d.control import forget
from dream3d.export import Export
from dream3d.facts import describe, extras, minutes
from dream3d.final import around, final_pictures, mask_picture
from dream3d.fitting import device_named, fit, own_generators, seed_all, terminable
from dream3d.guards import Collapse, in_words, memory_line
from dream3d.microscope import Microscope
from dream3d.obey import Obey
from dream3d.prompts import Prompt
from dream3d.report import write_report
from dream3d.representations.base import Representation
from dream3d.runs import RunFolder, write_atomically
from dream3d.stage import Stage, StageModule, seed_of

LOG = logging.getLogger(__name__)


class Interrupted(Dream3DError):
    """The user stopped the run; it can be exported and continued."""

    exit_code = 130


@final
class Pipeline:
    """A run: one prompt through one or more stages, to an asset.

    Args:
        prompt: what to make.
        negative: what to steer away from; empty for none.
        stages: by name, in order; each starts from the one before.
        export: what to write at the end; None for nothing.
        seed: another seed, another object.
        device: auto, cpu, cuda or cuda:INDEX.
        out: folder of all runs.
        tag: first part of the run folder's name.
        preview_every: steps between preview pictures; 0 for none.
        checkpoint_every: steps between checkpoints.
        turntable_views: pictures of the final film; 0 for none.
        picture_size: pixels on a side of the final pictures.
        max_minutes: of optimisation in one go, after which what there is is exported; None for no limit.
        quiet: print only warnings and errors.
    """

    def __init__(
        self,
        *,
        prompt: str,
        stages: dict[str, Stage],
        negative: str = "",
        export: Export | None = None,
        seed: int = 0,
        device: str = "auto",
        out: str = "outputs",
        tag: str = "run",
        preview_every: int = 100,
        checkpoint_every: int = 500,
        turntable_views: int = 36,
        picture_size: int = 256,
        max_minutes: float | None = None,
        quiet: bool = False,
    ) -> None:
        if not stages:
            raise InputError("stages: expected one or more, got none.")
        in_range("seed", seed, 0, 2**63 - 1)
        in_range("checkpoint_every", checkpoint_every, 1)
        in_range("picture_size", picture_size, 16, 4096)
        if max_minutes is not None:
            in_range("max_minutes", max_minutes, 0)
        self.prompt = Prompt(prompt, negative)
        if negative.strip() and not any(stage.prior.reads_negative for stage in stages.values()):
            kind = type(next(iter(stages.values())).prior).__name__
            raise InputError(f"negative: {kind} reads no texts. Leave it out, or take a prior that reads them.")
        self.stages = dict(stages)
        self.export = export
        self.seed = seed
        self.device = device_named(device)
        self.out = Path(out)
        self.tag = tag
        self.preview_every = preview_every
        self.checkpoint_every = checkpoint_every
        self.turntable_views = turntable_views
        self.picture_size = picture_size
        self.max_minutes = max_minutes
        self.quiet = quiet
        self._deadline: float | None = None
        self.renderer = list(self.stages.values())[-1].renderer
        """What draws the representation in hand: that of its stage, which need not be the last."""
        self._at: tuple[str, Stage] | None = None  # the stage that is being trained
        self.watch: Callable[[RunFolder, str], pl.Callback] | None = None
        """Makes one more callback for each stage, from its name: `--view` shows what happens there."""
        self.resolved = ""
        """The configuration as YAML, written into the run folder; `config.load` fills it in."""

    def run(self) -> Path:
        """Everything, from an empty folder to the asset.

        Returns:
            the run folder.

        Raises:
            Dream3DError: with the reason also in run.json.
        """
        self._load(list(self.stages))  # a missing prior is said before anything is written
        run = RunFolder.create(self.out, self.prompt.text, self.tag)
        with run.locked():
            return self._go(run, None)

    def resume(self, run: RunFolder, *, rewrite: bool = False) -> Path:
        """Continue a run that was stopped, cut off or killed, at whatever moment, to the same end.

        On the same machine the last checkpoint and the asset have the bytes of a run that nothing disturbed.

        Args:
            run: its folder; without a checkpoint in it, the run begins anew there.
            rewrite: whether this pipeline's configuration replaces config.yaml.

        Returns:
            the run folder.

        Raises:
            RunFolderError: another process is at it, every checkpoint is damaged, or they do not fit the configuration.
            Dream3DError: as `run` does.
        """
        with run.locked():
            run.sweep()
            saved = newest(run, LOG.warning)[1] if stored(run.ckpts) else None
            names = list(self.stages)
            at = self._position(saved) if saved else 0
            over = saved is not None and at == len(names) - 1 and saved["step"] >= self.stages[names[at]].steps
            if over and run.state().get("status") == "done":
                self.say(f"{run.path} is done; --steps goes on for longer")
                return run.path
            self._load(names[at:])
            self._take_back(run, saved)
            if rewrite:
                write_atomically(run.config, self.resolved)
            return self._go(run, saved)

    def _go(self, run: RunFolder, saved: Mapping[str, Any] | None) -> Path:
        """From the beginning or from a checkpoint to the asset."""
        began, spent = time.monotonic(), 0.0
        self._deadline = None if self.max_minutes is None else began + 60 * self.max_minutes
        with terminable(), own_generators():
            try:
                forget(run)
                if self.resolved and not run.config.exists():
                    write_atomically(run.config, self.resolved)
                spent = describe(run, self.stages, self.extras(), self.device, resumed=saved, say=self.say)
                representation, stopped = self._train(run, saved)
                if isinstance(stopped, Interrupted):
                    so_far = self._so_far(run, representation)
                    raise Interrupted(f"{stopped}; {so_far}. Go on with: dream3d resume {run.path}")
                self._finish(run, representation)
            except BaseException as error:
                told = in_words(error, run, self._at)
                interrupted = isinstance(told, (Interrupted, KeyboardInterrupt))
                reason = str(told).partition("\n")[0] or type(told).__name__
                with suppress(OSError):  # the disk may be what is wrong
                    status = "interrupted" if interrupted else "failed"
                    run.update(status=status, reason=reason, **self._cost(began, spent))
                    run.log(f"stopped: {reason}")
                if isinstance(told, Dream3DError):
                    self._report(run)
                if told is error:
                    raise
                raise told from error
        if stopped:
            run.update(status="stopped", reason=stopped, **self._cost(began, spent))
            self._report(run)
            self.say(f"{stopped}; go on with: dream3d resume {run.path}")
            return run.path
        run.update(status="done", **self._cost(began, spent))
        self._report(run)
        self.say(f"done in {minutes(time.monotonic() - began)}: {run.path}")
        return run.path

    def restore(self, run: RunFolder) -> Representation:
        """The representation of the run's newest checkpoint that is whole.

        Raises:
            RunFolderError: there is none, or it does not fit the configuration.
        """
        path, saved = newest(run, LOG.warning)
        name = list(self.stages)[self._position(saved)]
        self.renderer = self.stages[name].renderer
        return self._filled(self.representation(name), saved, path.name)

    def _load(self, names: list[str]) -> None:
        for name in names:
            self.stages[name].prior.load()

    def _position(self, saved: Mapping[str, Any]) -> int:
        """Which stage a checkpoint is of, counted from 0."""
        if saved["stage"] not in self.stages:
            raise RunFolderError(f"the checkpoint is of stage '{saved['stage']}', which config.yaml does not have.")
        return list(self.stages).index(saved["stage"])

    def _filled(self, part: Any, saved: Mapping[str, Any], what: str = "the checkpoint") -> Any:
        """A representation or a stage's module with the checkpoint's content."""
        try:
            if isinstance(part, StageModule):
                part.restore(saved)
            else:
                part.load_state_dict(saved["representation"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{what} does not fit config.yaml: {str(error).splitlines()[0]}") from error
        return part

    def _take_back(self, run: RunFolder, saved: Mapping[str, Any] | None) -> None:
        """Whatever was written after the checkpoint will be written again; damaged checkpoints get another name."""
        names = list(self.stages)
        at = self._position(saved) if saved else 0
        done = {name: self.stages[name].steps for name in names[:at]}
        if saved:
            done[names[at]] = saved["step"]
        total = sum(done.values())
        for path in stored(run.ckpts):
            if number_of(path) > total:
                os.replace(path, path.with_suffix(".damaged"))
        rewind(run, done)

    def say(self, line: str) -> None:
        """One line for the user, unless quiet."""
        if not self.quiet:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def representation(self, name: str, start: Representation | None = None) -> Representation:
        """What a stage begins with, on the run's device; `start` is what the stage before has made."""
        # Initial parameters are a function of the seed, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed))
            return self.stages[name].representation(start).to(self.device)

    def module(self, name: str, representation: Representation | None = None) -> StageModule:
        """A stage before its first step, its prior on the run's device; without a representation it gets a new one."""
        if representation is None:
            representation = self.representation(name)
        stage, number = self.stages[name], list(self.stages).index(name) + 1
        stage.prior.to(self.device)
        return StageModule(stage, self.prompt, representation, seed=self.seed, number=number)

    def _train(self, run: RunFolder, saved: Mapping[str, Any] | None) -> tuple[Representation, str | Interrupted]:
        """The stages that are left; with why it stopped before the end of the last, or nothing."""
        representation: Representation | None = None
        stopped: str | Interrupted = ""
        first = self._position(saved) if saved else 0
        for number in range(first, len(self.stages)):
            here = saved if number == first else None
            representation, stopped = self._stage(run, number, representation, here)
            if stopped:
                break
        self._at = None
        assert representation is not None
        return representation, stopped

    def _stage(
        self, run: RunFolder, number: int, start: Representation | None, saved: Mapping[str, Any] | None
    ) -> tuple[Representation, str | Interrupted]:
        """One stage, from its beginning or from a checkpoint of it."""
        name, stage = list(self.stages.items())[number]
        representation = self.representation(name, start)
        self.renderer = stage.renderer
        if saved is not None and saved["step"] >= stage.steps:  # its end: wanted by what comes next
            return self._filled(representation, saved), ""
        self._at = name, stage
        run.log(memory_line(name, stage, representation, self.device))
        module = self.module(name, representation)
        if saved is not None:
            self._filled(module, saved)
        begin, began, asked = module.step_index, time.monotonic(), stage.prior.asked
        steps = [each.steps for each in self.stages.values()]
        offset, ends = sum(steps[:number]), {sum(steps[: n + 1]) for n in range(len(steps))}
        title = f"stage {number + 1}/{len(steps)} {name}"
        interrupt, limit = Interrupt(), TimeLimit(self._deadline)
        line = LiveLine(title, preview_every=self.preview_every, quiet=self.quiet)
        checkpoints = Checkpoints(run.ckpts, every=self.checkpoint_every, stage=name, offset=offset, ends=ends)
        control = Obey(run, checkpoints.save, line, self._deadline)
        callbacks: list[pl.Callback] = [
            interrupt,
            Seeds(),
            line,
            Previews(run.progress, every=self.preview_every, offset=offset),
            Metrics(run, name),
            Microscope(run.path / "save" / "microscope", every=self.preview_every, stage=name, offset=offset),
            Collapse(run, name, LOG.warning),
            checkpoints,  # after all that reports: what is before it is on disk by then
            *([self.watch(run, name)] if self.watch else []),
            control,
            limit,
        ]
        try:
            fit(module, self.device, callbacks)
        except BaseException:
            with suppress(OSError):  # it would hide what went wrong
                if module.step_index > begin:
                    checkpoints.save(module)
            raise
        if begin < module.step_index < stage.steps:
            checkpoints.save(module)
        # Lightning leaves a module on the CPU.
        module.representation.to(self.device)
        taken = module.step_index - begin
        run.log(f"{title}: {taken} steps in {time.monotonic() - began:.1f} s")
        forwards = {name: round((stage.prior.asked - asked) / max(taken, 1), 2)}
        run.update(forwards_per_step={**run.state().get("forwards_per_step", {}), **forwards})
        if interrupt.asked:
            return representation, Interrupted(f"interrupted at step {module.step_index}")
        if (limit.asked or control.asked) and (module.step_index < stage.steps or number + 1 < len(steps)):
            why = "stopped as asked" if control.asked else f"{self.max_minutes:g} minutes are over"
            return representation, f"{why} at step {module.step_index} of stage {name}"
        return representation, ""

    def _finish(self, run: RunFolder, representation: Representation) -> None:
        """Pictures and asset."""
        seed_all(self.seed)  # whatever was drawn before, in this process or another
        self._pictures(run, representation)
        self._asset(run, representation)

    def _so_far(self, run: RunFolder, representation: Representation) -> str:
        """Pictures and asset of an unfinished object; in words where they are, or why there are none."""
        try:
            self._finish(run, representation)
        except Dream3DError as error:
            return f"no asset yet: {str(error).rstrip('.')}"
        return f"the asset so far is in {run.export}" if self.export else f"pictures are in {run.final}"

    def _pictures(self, run: RunFolder, representation: Representation) -> None:
        """Four views, with the masks of parts, the turntable, and the film of the previews."""
        self.say("drawing the four sides and the turntable")

        def draw(views: int) -> Iterator[torch.Tensor]:
            return around(self.renderer, representation, views, self.picture_size, self.device)

        final_pictures(run, draw, self.turntable_views)
        mask_picture(run, self.renderer, representation, self.picture_size, self.device)

    def _asset(self, run: RunFolder, representation: Representation) -> None:
        if self.export is None:
            return
        began = time.monotonic()

        def tell(line: str) -> None:
            run.log(line)
            self.say(f"  {line}")

        def warn(line: str) -> None:
            run.warn(line)
            LOG.warning(line)

        files = self.export(representation, run.export, run.path.parent.name, self.extras(), say=tell, warn=warn)
        run.update(files=[str(f.relative_to(run.path)) for f in files])
        self.say(f"asset {', '.join(f.name for f in files)} in {minutes(time.monotonic() - began)}")

    def _report(self, run: RunFolder) -> None:
        """The page of the run, which is worth no less without it."""
        try:
            with own_generators():
                write_report(run)
        except (Dream3DError, OSError) as error:
            run.log(f"no report: {error}")

    def _cost(self, began: float, spent: float) -> dict[str, float]:
        seconds = round(spent + time.monotonic() - began, 2)
        return {"seconds": seconds, "peak_memory_gb": round(memory_gb(self.device), 3)}

    def extras(self) -> dict[str, Any]:
        """What is written into the asset: no path, no user, no time, so that the same run gives the same bytes."""
        return extras(self.prompt, self.seed, self.stages.values())
