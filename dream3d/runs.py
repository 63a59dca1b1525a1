"""Run folders: where everything of a run is, its state file, and finding runs again. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dream3d.checks import InputError, RunFolderError

STATE = "run.json"


def slug(text: str, limit: int = 60) -> str:
    """A folder name out of a prompt: lower case, words joined by dashes, at most `limit` characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:limit].strip("-") or "prompt"


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write to a temporary name beside `path`, then rename: a reader sees the old content or the new, never half."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class RunFolder:
    """One run on disk. The layout is part of the interface: scripts read it.

    run.json config.yaml command.txt log.txt metrics.jsonl metrics.csv ckpts/ save/progress/ save/final/ export/
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ckpts = path / "ckpts"
        self.progress = path / "save" / "progress"
        self.final = path / "save" / "final"
        self.export = path / "export"
        self.config = path / "config.yaml"

    @staticmethod
    def create(out: Path, prompt: str, tag: str) -> RunFolder:
        """A new folder `out/<slug>/<tag>@<time>[-n]`, never one that exists; `out/latest` points to it."""
        if not re.fullmatch(r"[\w.+-]+", tag, re.ASCII):
            raise InputError(f"tag: expected letters, digits, '.', '_', '+', '-' (got '{tag}').")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for number in range(1, 1000):
            path = out / slug(prompt) / (f"{tag}@{stamp}" + (f"-{number}" if number > 1 else ""))
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            run = RunFolder(path)
            for folder in (run.ckpts, run.progress, run.final, run.export):
                folder.mkdir(parents=True)
            run._link_latest(out)
            return run
        raise RunFolderError(f"no free folder name for {tag}@{stamp} in {out}.")

    def _link_latest(self, out: Path) -> None:
        link = out / ".latest.tmp"
        # Without symbolic links (some file systems) only the shorthand "latest" is lost.
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)
            link.symlink_to(self.path.relative_to(out))
            os.replace(link, out / "latest")

    def has_state(self) -> bool:
        """Whether it got as far as saying what it is."""
        return (self.path / STATE).exists()

    def state(self) -> dict[str, Any]:
        """What run.json holds."""
        try:
            return json.loads((self.path / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / STATE} is missing or damaged ({type(error).__name__}).") from error

    def update(self, **changes: Any) -> None:
        """Change some entries of run.json, atomically; None takes one out."""
        state = self.state() if self.has_state() else {}
        state = {key: value for key, value in {**state, **changes}.items() if value is not None}
        write_atomically(self.path / STATE, json.dumps(state, indent=2, ensure_ascii=False) + "\n")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder while this process works in it. However a process ends, the system lets go of it.

        Raises:
            RunFolderError: another one holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows: nothing is held
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = self.state().get("pid") if self.has_state() else "unknown"
                raise RunFolderError(f"{self.path} is running (pid {pid}): stop it first.") from None
            except OSError:
                pass  # some network file systems have no locks
            yield
        finally:
            os.close(handle)

    def sweep(self) -> None:
        """Remove what a process that was killed left half written."""
        for path in self.path.rglob("*"):
            if re.fullmatch(r"\.tmp-.+|\..+\.(tmp|part)|step\d+\.tmp", path.name) and not path.is_dir():
                path.unlink(missing_ok=True)

    def log(self, line: str) -> None:
        """Append to log.txt with the time."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    def last_checkpoint(self) -> Path:
        """The newest checkpoint."""
        last = self.ckpts / "last.ckpt"
        if last.exists():
            return last.resolve()
        raise RunFolderError(f"{self.path} has no checkpoint yet: it stopped before the first one.")


def find(text: str, out: str | Path = "outputs") -> RunFolder:
    """The run that a user means: its folder, a prompt's folder (the newest run in it), or "latest".

    Raises:
        RunFolderError: there is none.
    """
    path = Path(out) / "latest" if text == "latest" else Path(text)
    if not (path / STATE).is_file():
        inside = max(path.glob(f"*@*/{STATE}"), key=_stamp, default=None)
        if inside is not None:
            return RunFolder(inside.parent.resolve())
        raise RunFolderError(f"no run at {path}. Runs here: dream3d runs")
    return RunFolder(path.resolve())


def _stamp(state: Path) -> str:
    """When a run began, from its folder's name."""
    return state.parent.name.rpartition("@")[2]


def list_runs(out: str | Path = "outputs") -> list[tuple[RunFolder, Mapping[str, Any]]]:
    """All runs below `out` with their state, oldest first; folders whose state is damaged are left out."""
    found = []
    for path in sorted(Path(out).glob(f"*/*@*/{STATE}"), key=_stamp):
        with contextlib.suppress(RunFolderError):
            run = RunFolder(path.parent)
            found.append((run, run.state()))
    return found
