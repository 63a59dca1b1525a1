"""The door: finds the command, turns every failure into one line and an exit code.

Exit codes: 0 done, 1 run failed, 2 wrong usage or configuration, 3 prior, weights or device missing,
4 bad run folder, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from dream3d import __version__
from dream3d.checks import Dream3DError, did_you_mean
from dream3d.commands.base import Parser, UsageError, say, set_logging, table
from dream3d.kernels.environment import set_thread_policy

COMMANDS = {
    "generate": "turn a prompt into a 3D asset",
    "resume": "go on with a run that was stopped or killed",
    "pause": "let a run wait; resume lets it go on",
    "stop": "let a run stop after the step in hand, with an asset",
    "view": "watch a run or a file in the browser",
    "export": "write the asset of a finished run again, with other settings",
    "render": "draw pictures or a turntable of a run or a mesh file",
    "evaluate": "judge assets: R@1, similarity, Janus rate",
    "report": "make the page of a run anew",
    "compare": "put runs side by side on one page",
    "runs": "list, show or remove runs",
    "priors": "list the diffusion priors, their licences and whether they are here",
    "prior": "train, sample and examine a prior like the built-in one",
    "config": "show or check a configuration",
    "bench": "measure where the objectives lead, beside what theory says",
    "cite": "name the papers behind a configuration",
    "doctor": "check this machine and say what to do about what is missing",
}

INTERRUPTED = 130
HELP_WORDS = ("-h", "--help", "help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Errors go to standard error, one line each."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in words or "--verbose" in words
    if "--no-color" in words:
        os.environ["NO_COLOR"] = "1"
    try:
        return _dispatch(words)
    except SystemExit as stop:  # argparse after --help
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted.", INTERRUPTED, False)
    except BrokenPipeError:
        # The reader (head, say) went away; nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Dream3DError as error:
        return _fail(str(error), error.exit_code, verbose)
    except Exception as error:
        return _fail(_unexpected(error), 1, verbose)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in HELP_WORDS:
        _help()
        return 0
    name, *rest = words
    if name in ("--version", "-V"):
        say(f"dream3d {__version__}")
        return 0
    if name not in COMMANDS:
        if name.startswith("-"):
            raise UsageError(f"no flag '{name}' here: the command comes first. See: dream3d --help")
        raise UsageError(f"no command '{name}'.{did_you_mean(name, COMMANDS)} See: dream3d --help")
    command = importlib.import_module(f"dream3d.commands.{name}")
    parser = Parser(name, command.ABOUT, command.EXAMPLE)
    command.add_arguments(parser)
    args = parser.parse(rest)
    set_logging(args)
    set_thread_policy()
    return command.run(args)


def _help() -> None:
    say("dream3d: text to 3D by score distillation\n")
    say("usage: dream3d COMMAND ...\n")
    for line in table([(f"  {name}", about) for name, about in COMMANDS.items()]):
        say(line)
    say("\n  dream3d COMMAND --help    the flags of a command")
    say("  dream3d --version         the version")
    say('\nexample: dream3d generate "a teddy bear"')


def _fail(line: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n" if code == INTERRUPTED else f"error: {line}\n")
    return code


def _unexpected(error: Exception) -> str:
    """One line for an error that nobody foresaw; the traceback goes to a file that the line names."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    what = what if len(what) <= 300 else what[:299] + "…"
    text = "".join(traceback.format_exception(error))
    for folder in (Path.home() / ".cache" / "dream3d", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            log = folder / "last-error.txt"
            log.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return f"{what} (a fault in dream3d; details: {log})"
    return f"{what} (a fault in dream3d; details: repeat with --verbose)"
