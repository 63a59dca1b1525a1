"""Checkpoints on disk: written in one step, verified by their checksums, damaged ones passed over."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from dream3d.checks import RunFolderError
from dream3d.runs import RunFolder

KEEP = 2
"""Checkpoints that are kept beside those at stage ends."""
NAME = re.compile(r"step(\d+)\.ckpt")


class _Sink:
    """Passes bytes on to a file. What goes wrong is kept for later: torch's writer is C++ and would say it worse."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        pass


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write to a neighbour, wait for the disk, then rename: whenever the power fails, the old file or the new is there.

    The same content gives the same bytes. torch's file format carries a CRC-32 of every tensor; `read` checks them.

    Raises:
        OSError: no space, say. What was at `path` stays.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            sink = _Sink(file)
            torch.save(_plain(content), cast(IO[bytes], sink))
            if sink.error is not None:
                raise sink.error
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Wait until a renaming has reached the disk, where the system can be asked for that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _plain(value: Any) -> Any:
    """A copy with containers of its own and one object for equal texts.

    Pickle notes which objects are the same one, and those that came from a checkpoint are not those of a fresh run.
    """
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        copied = [_plain(inner) for inner in value]
        return tuple(copied) if isinstance(value, tuple) else copied
    return value


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU: tensors and plain values.

    Raises:
        RunFolderError: it is damaged, or something else than a checkpoint.
    """
    try:
        why = _fault(path)
        saved = None if why else torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunFolderError(f"{path.name} cannot be read ({error.strerror or error}).") from error
    except MemoryError:
        raise
    except Exception as error:  # torch's reader answers damage with a dozen kinds
        raise RunFolderError(f"{path.name} is damaged (unreadable).") from error
    if why:
        raise RunFolderError(f"{path.name} is damaged ({why}).")
    wanted = {"stage": str, "step": int, "representation": dict, "optimizer": dict}
    if not isinstance(saved, dict) or not all(isinstance(saved.get(name), kind) for name, kind in wanted.items()):
        raise RunFolderError(f"{path.name} is not a checkpoint of a run.")
    return saved


def _fault(path: Path) -> str:
    """What is wrong with a file of torch's format, or nothing. torch itself looks at no checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
                return "larger inside than outside"  # torch never compresses: a bomb
            return "wrong checksum" if archive.testzip() is not None else ""
    except (zipfile.BadZipFile, EOFError):
        return "unexpected end"


def number_of(path: Path) -> int:
    """Steps of the run until this checkpoint, from its name."""
    found = NAME.fullmatch(path.name)
    return int(found[1]) if found else -1


def stored(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted((path for path in folder.glob("step*.ckpt") if NAME.fullmatch(path.name)), key=number_of)


def newest(run: RunFolder, tell: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint that is whole, and its content.

    Args:
        run: whose.
        tell: receives a line for each damaged one that was passed over.

    Raises:
        RunFolderError: there is none, or none that is whole.
    """
    faults: list[str] = []
    for path in reversed(stored(run.ckpts)):
        try:
            saved = read(path)
        except RunFolderError as error:
            faults.append(str(error).rstrip("."))
            continue
        for fault in faults:
            tell(f"{fault}; {path.name} is used instead.")
        return path, saved
    if faults:
        raise RunFolderError(f"no checkpoint of {run.path} is whole: {'; '.join(faults)}.")
    raise RunFolderError(f"{run.path} has no checkpoint yet: it stopped before the first one.")


def thin(folder: Path, ends: Collection[int], keep: int = KEEP) -> None:
    """Remove all but the newest `keep` checkpoints and those after `ends` steps."""
    loose = [path for path in stored(folder) if number_of(path) not in ends]
    for path in loose[: max(len(loose) - keep, 0)]:
        path.unlink(missing_ok=True)
