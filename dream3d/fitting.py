"""Around the training of a stage: Lightning without its talk, signals, the device, the global random generators."""

from __future__ import annotations

import logging
import random
import re
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytorch_lightning as pl
import torch

from dream3d.checks import InputError, MissingError
from dream3d.stage import StageModule, seed_of


def device_named(name: str) -> torch.device:
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


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, which clusters send before they kill, is a Ctrl-C."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def seed_all(*numbers: int) -> None:
    """Seed the global generators; not with what a step's own generator has, or both would draw the same."""
    seed = seed_of(*numbers, 1)
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def own_generators() -> Iterator[None]:
    """The global generators (CPU) are afterwards as they were, whoever seeded them within."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
