"""Runs the stages in order, hands the result on, owns the run folder."""

from __future__ import annotations

import logging
import os
import platform
import re
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import pytorch_lightning as pl
import torch

from dream3d import __version__
from dream3d.callbacks import Checkpoints, Interrupt, LiveLine, Metrics, Previews, memory_gb
from dream3d.cameras import turntable
from dream3d.checks import Dream3DError, InputError, MissingError, RunError, RunFolderError, in_range
from dream3d.export import Export
from dream3d.kernels.ops import backend
from dream3d.media import read_pictures, row, to_bytes, write_film, write_picture
from dream3d.microscope import Microscope
from dream3d.prompts import Prompt
from dream3d.report import write_report
from dream3d.representations.base import Representation
from dream3d.runs import RunFolder, write_atomically
from dream3d.stage import Stage, StageModule, seed_of

VIEW_NAMES = ("front", "left", "back", "right")


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
        quiet: bool = False,
    ) -> None:
        if not stages:
            raise InputError("stages: expected one or more, got none.")
        in_range("seed", seed, 0, 2**63 - 1)
        in_range("checkpoint_every", checkpoint_every, 1)
        in_range("picture_size", picture_size, 16, 4096)
        self.prompt = Prompt(prompt, negative)
        self.stages = dict(stages)
        self.export = export
        self.seed = seed
        self.device = _device(device)
        self.out = Path(out)
        self.tag = tag
        self.preview_every = preview_every
        self.checkpoint_every = checkpoint_every
        self.turntable_views = turntable_views
        self.picture_size = picture_size
        self.quiet = quiet
        self.resolved = ""
        """The configuration as YAML, written into the run folder; `config.load` fills it in."""

    def run(self) -> Path:
        """Everything, from an empty folder to the asset.

        Returns:
            the run folder.

        Raises:
            Dream3DError: with the reason also in run.json.
        """
        for stage in self.stages.values():
            stage.prior.load()  # a missing prior is said before anything is written
        run = RunFolder.create(self.out, self.prompt.text, self.tag)
        began = time.monotonic()
        self._describe(run)
        try:
            representation = self._train(run)
            self._pictures(run, representation)
            self._asset(run, representation)
        except BaseException as error:
            told = _in_words(error)
            interrupted = isinstance(told, (Interrupted, KeyboardInterrupt))
            reason = str(told).partition("\n")[0] or type(told).__name__
            run.update(status="interrupted" if interrupted else "failed", reason=reason, **self._cost(began))
            run.log(f"stopped: {reason}")
            if isinstance(told, Dream3DError):
                self._report(run)
            if told is error:
                raise
            raise told from error
        run.update(status="done", **self._cost(began))
        self._report(run)
        self.say(f"done in {_minutes(time.monotonic() - began)}: {run.path}")
        return run.path

    def restore(self, run: RunFolder) -> Representation:
        """The representation of the run's newest checkpoint.

        Raises:
            RunFolderError: there is none, it is damaged, or it does not fit the configuration.
        """
        path = run.last_checkpoint()
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            others = sorted(p.name for p in run.ckpts.glob("step*.ckpt") if p != path)
            cure = f"; {others[-1]} may be fine" if others else ""
            raise RunFolderError(f"{path.name} is damaged (unexpected end){cure}.") from error
        if saved["stage"] not in self.stages:
            raise RunFolderError(f"{path.name} is of stage '{saved['stage']}', which config.yaml does not have.")
        representation = self._build(saved["stage"], None)
        try:
            representation.load_state_dict(saved["representation"])
        except RuntimeError as error:
            raise RunFolderError(f"{path.name} does not fit config.yaml: {str(error).splitlines()[0]}") from error
        return representation.to(self.device)

    def say(self, line: str) -> None:
        """One line for the user, unless quiet."""
        if not self.quiet:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def _build(self, name: str, start: Representation | None) -> Representation:
        # Initial parameters are a function of the seed, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed))
            return self.stages[name].representation(start)

    def _train(self, run: RunFolder) -> Representation:
        representation: Representation | None = None
        offset, forwards = 0, {}
        for number, (name, stage) in enumerate(self.stages.items(), start=1):
            representation = self._build(name, representation).to(self.device)
            stage.prior.to(self.device)
            module = StageModule(stage, self.prompt, representation, seed=self.seed, number=number)
            checkpoints = Checkpoints(run.ckpts, every=self.checkpoint_every, stage=name, offset=offset)
            interrupt = Interrupt()
            title = f"stage {number}/{len(self.stages)} {name}"
            callbacks = [
                LiveLine(title, preview_every=self.preview_every, quiet=self.quiet),
                Previews(run.progress, every=self.preview_every, offset=offset),
                Metrics(run, name),
                Microscope(run.path / "save" / "microscope", every=self.preview_every, stage=name, offset=offset),
                checkpoints,
                interrupt,
            ]
            began, asked = time.monotonic(), stage.prior.asked
            try:
                fit(module, self.device, callbacks)
            finally:
                if module.step_index:
                    checkpoints.save(module, keep=True)
            # Lightning leaves a module on the CPU.
            module.representation.to(self.device)
            run.log(f"{title}: {module.step_index} steps in {time.monotonic() - began:.1f} s")
            offset += module.step_index
            forwards[name] = round((stage.prior.asked - asked) / max(module.step_index, 1), 2)
            run.update(forwards_per_step=forwards)
            if interrupt.asked:
                raise Interrupted(f"interrupted at step {module.step_index}; {self._so_far(run, representation)}")
            if number < len(self.stages):
                checkpoints.thin(0)  # the stage's end is kept; the last few are those of the last stage
        assert representation is not None
        return representation

    def _so_far(self, run: RunFolder, representation: Representation) -> str:
        """Pictures and asset of an unfinished object; in words where they are, or why there are none."""
        try:
            self._pictures(run, representation)
            self._asset(run, representation)
        except Dream3DError as error:
            return f"no asset yet: {error}"
        return f"the asset so far is in {run.export}" if self.export else f"pictures are in {run.final}"

    @torch.no_grad()
    def _pictures(self, run: RunFolder, representation: Representation) -> None:
        """Four views, the turntable, and the film of the previews."""
        self.say("drawing the four sides and the turntable")
        renderer = list(self.stages.values())[-1].renderer
        white = torch.ones(3, device=self.device)

        def draw(views: int) -> Iterator[torch.Tensor]:
            cameras = turntable(views, self.picture_size).to(self.device)
            for i in range(views):
                yield renderer(representation, cameras[i]).over(white)

        four = torch.cat(list(draw(4)))
        write_picture(run.final / "views.png", row(four))
        for name, pixels in zip(VIEW_NAMES, to_bytes(four), strict=True):
            write_picture(run.final / f"{name}.png", pixels)
        if self.turntable_views:
            frames = [to_bytes(image)[0] for image in draw(self.turntable_views)]
            write_film(run.final / "turntable.mp4", frames, fps=18)
        previews = sorted(run.progress.glob("step*.jpg"))
        if previews:
            write_film(run.progress.parent / "progress.mp4", read_pictures(previews), fps=8)

    def _asset(self, run: RunFolder, representation: Representation) -> None:
        if self.export is None:
            return
        began = time.monotonic()

        def tell(line: str) -> None:
            run.log(line)
            self.say(f"  {line}")

        files = self.export(representation, run.export, run.path.parent.name, self.extras(), say=tell)
        run.update(files=[str(f.relative_to(run.path)) for f in files])
        self.say(f"asset {', '.join(f.name for f in files)} in {_minutes(time.monotonic() - began)}")

    def _report(self, run: RunFolder) -> None:
        """The page of the run, which is worth no less without it."""
        try:
            write_report(run)
        except (Dream3DError, OSError) as error:
            run.log(f"no report: {error}")

    def _cost(self, began: float) -> dict[str, float]:
        seconds = round(time.monotonic() - began, 1)
        return {"seconds": seconds, "peak_memory_gb": round(memory_gb(self.device), 3)}

    def extras(self) -> dict[str, Any]:
        """What is written into the asset: no path, no user, no time, so that the same run gives the same bytes."""
        cards = {stage.prior.card().name: stage.prior.card() for stage in self.stages.values()}
        return {
            "prompt": self.prompt.text,
            "negative": self.prompt.negative,
            "seed": self.seed,
            "priors": [{"name": c.name, "licence": c.licence} for c in cards.values()],
            "objectives": [type(s.objective).__name__ for s in self.stages.values()],
            "steps": sum(s.steps for s in self.stages.values()),
        }

    def _describe(self, run: RunFolder) -> None:
        """The first three lines of a run, and the files that say what it is."""
        device = f"{self.device} {torch.cuda.get_device_name(self.device)}" if self.device.type == "cuda" else "cpu"
        kernels = backend(self.device)
        self.say(f"dream3d {__version__} · device {device} · kernels {kernels}")
        for card in {s.prior.card().name: s.prior.card() for s in self.stages.values()}.values():
            self.say(f"prior {card.name} ({card.source}, {card.licence})")
        self.say(f"run {run.path}")
        if self.resolved:
            write_atomically(run.config, self.resolved)
        write_atomically(run.path / "command.txt", shlex.join(["dream3d", *sys.argv[1:]]) + "\n")
        run.update(
            status="running",
            prompt=self.prompt.text,
            negative=self.prompt.negative,
            seed=self.seed,
            pid=os.getpid(),
            started=time.strftime("%Y-%m-%dT%H:%M:%S"),
            device=device,
            kernels=kernels,
            versions={"dream3d": __version__, "torch": torch.__version__, "python": platform.python_version()},
            steps={name: stage.steps for name, stage in self.stages.items()},
            priors=self.extras()["priors"],
        )


def _device(name: str) -> torch.device:
    """The device that is meant.

    Raises:
        InputError: no such name.
        MissingError: CUDA is not there.
    """
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"device: '{name}' is not one of auto, cpu, cuda, cuda:INDEX.")
    # torch keeps an index in eight bits: cuda:256 would be cuda:0.
    if name != "cpu" and int(name.partition(":")[2] or 0) >= (torch.cuda.device_count() if there else 0):
        raise MissingError(f"device: torch {torch.__version__} finds no {name}. Use cpu; details: dream3d doctor")
    return torch.device(name)


def fit(module: StageModule, device: torch.device, callbacks: list[pl.Callback]) -> None:
    """Train to the stage's last step with Lightning, without its own talk."""
    with _quiet_lightning(), _interrupts():
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=callbacks,
        )
        trainer.fit(module)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Lightning turns a KeyboardInterrupt into `sys.exit(1)` and leaves Ctrl-C ignored; undo both."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Its advice (data loader workers, missing loggers) is for those who write a training loop.
            warnings.filterwarnings("ignore", module=r"pytorch_lightning.*|lightning.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _in_words(error: BaseException) -> BaseException:
    """Out of memory, as one line with the cure; everything else as it is."""
    no_memory = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError))
    if no_memory or (isinstance(error, RuntimeError) and "allocate" in str(error)):
        first = (str(error) or type(error).__name__).splitlines()[0]
        return RunError(
            f"out of memory: {first} Try --set stages.<name>.batch=1, a smaller cameras.size, or --quality draft."
        )
    return error


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.1f} s"
