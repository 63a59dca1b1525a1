"""Requests to a run while it goes on: pause, go on, stop; through one small file in its folder. Standard library only.

`control.json` holds the last request, `{"request": "pause", "pid": 4711}`, and is written in one step by whoever may
write in the folder. The run looks at it between steps, a few times a second. A request is for the process whose pid is
in run.json: one that is for another process, or something else than a request, is ignored, and a run that begins or is
resumed removes what it finds. Neither asking nor looking draws a random number: a run that was paused ends in the bytes
of one that was not.
"""

from __future__ import annotations

import json
import os
import stat
import time
from typing import Literal, final, get_args

from dream3d.checks import RunFolderError, one_of
from dream3d.runs import RunFolder, write_atomically

FILE = "control.json"
LARGEST = 4096
"""Bytes of the file; more is not a request."""
EVERY = 0.2
"""Seconds between two looks at the file."""
BUSY = ("running", "paused")
"""What run.json says of a run that goes on."""

Request = Literal["pause", "go", "stop"]
REQUESTS: tuple[Request, ...] = get_args(Request)


def goes_on(run: RunFolder) -> bool:
    """Whether a process is at the run now; one that was killed left its status behind, but not its lock."""
    if not run.has_state() or run.state().get("status") not in BUSY:
        return False
    try:
        with run.locked():
            return False
    except RunFolderError:
        return True


def ask(run: RunFolder, request: Request) -> None:
    """Ask the process that is at the run to pause, to go on, or to stop and export what there is.

    Raises:
        InputError: no such request.
        RunFolderError: nobody is at the run.
    """
    one_of("request", request, REQUESTS)
    if not goes_on(run):
        said = run.state().get("status", "unknown") if run.has_state() else "empty"
        said = "cut off" if said in BUSY else said
        raise RunFolderError(f"{run.path} is not running (it is {said}). Go on with: dream3d resume {run.path}")
    write_atomically(run.path / FILE, json.dumps({"request": request, "pid": run.state().get("pid")}) + "\n")


def forget(run: RunFolder) -> None:
    """Remove what was asked of an earlier process."""
    (run.path / FILE).unlink(missing_ok=True)


@final
class Requests:
    """What is asked of this process: the run's end of the file.

    Args:
        run: whose folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.path = run.path / FILE
        self._pid = os.getpid()
        self._next = 0.0
        self._seen: tuple[int, int, int] | None = None
        self._last: Request | None = None

    def last(self) -> Request | None:
        """The last request, at most `EVERY` seconds old; a request stays until there is another."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY
            self._look()
        return self._last

    def _look(self) -> None:
        try:
            about = os.stat(self.path)
            seen = (about.st_ino, about.st_mtime_ns, about.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
                return
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return
        if isinstance(found, dict) and found.get("pid") == self._pid and found.get("request") in REQUESTS:
            self._last = found["request"]
