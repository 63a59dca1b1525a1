"""What all commands share: the parser with its one-line errors, checked argument types, common flags, output.

Standard library only: `dream3d --help` and every wrong usage are answered before torch loads.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

from dream3d.checks import Dream3DError, InputError, MissingError, RunFolderError, did_you_mean, in_range, one_of
from dream3d.runs import RunFolder, find

if TYPE_CHECKING:
    from dream3d.control import Request
    from dream3d.pipeline import Pipeline

Number = TypeVar("Number", int, float)

DEVICES = ("auto", "cpu", "cuda", "cuda:0")


class UsageError(Dream3DError):
    """Wrong usage. Not a ValueError, so argparse passes it through with its wording untouched."""

    exit_code = 2


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, the nearest name, and dotted flags that go to the configuration.

    Args:
        command: name of the command, as typed.
        about: one sentence for the top of its help.
        example: a command line shown at the bottom of its help.
    """

    def __init__(self, command: str, about: str, example: str = "") -> None:
        super().__init__(
            prog=f"dream3d {command}",
            description=about,
            epilog=f"example: {example}" if example else None,
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
        )
        self.command = command

    def error(self, message: str) -> NoReturn:
        missing = re.match(r"the following arguments are required: (.*)", message)
        if missing:
            raise UsageError(f"{self.command} needs {missing[1]}. See: {self.prog} --help")
        raise UsageError(re.sub(r"^argument ([^:]*): ", r"\1: ", message) + f". See: {self.prog} --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse, or raise a UsageError. Dotted flags end up in `overrides`, in the order in which they came."""
        plain, dotted = split_dotted(argv)
        args, unknown = self.parse_known_args(plain)
        if unknown:
            self._refuse(unknown[0])
        args.overrides = [*(getattr(args, "set", None) or []), *dotted]
        return args

    def _refuse(self, word: str) -> NoReturn:
        if word.startswith("-") and word != "-":
            flag = word.partition("=")[0]
            nearest = did_you_mean(flag, self._option_string_actions)
            raise UsageError(f"{self.command} has no flag '{flag}'.{nearest} See: {self.prog} --help")
        raise UsageError(f"unexpected '{word}'. Put a text of several words into quotes. See: {self.prog} --help")


def split_dotted(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take `--a.b value` and `--a.b=value` out of a command line.

    Returns:
        the other arguments, and the overrides as "a.b=value".
    """
    plain: list[str] = []
    dotted: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--":
            return [*plain, word, *rest], dotted
        if not re.match(r"--[A-Za-z_]\w*\.[\w.]+(=|$)", word, re.ASCII):
            plain.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        if not equals:
            value = next(rest, None)
            if value is None:
                raise UsageError(f"--{key} needs a value.")
        dotted.append(f"{key}={value}")
    return plain, dotted


def _checked(check: Callable[[], object]) -> None:
    try:
        check()
    except InputError as error:
        raise UsageError(str(error)) from None


def whole(flag: str, low: int, high: float = math.inf) -> Callable[[str], int]:
    """Argument type: a whole number in [low, high]."""
    return _within(int, "a whole number", flag, low, high)


def number(flag: str, low: float, high: float = math.inf) -> Callable[[str], float]:
    """Argument type: a number in [low, high]."""
    return _within(float, "a number", flag, low, high)


def _within(kind: Callable[[str], Number], what: str, flag: str, low: float, high: float) -> Callable[[str], Number]:
    def convert(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            raise UsageError(f"{flag} must be {what} (got '{text}').") from None
        _checked(lambda: in_range(flag, value, low, high))
        return value

    return convert


def choice(flag: str, known: Iterable[str]) -> Callable[[str], str]:
    """Argument type: one of the known names."""
    names = tuple(known)

    def convert(text: str) -> str:
        _checked(lambda: one_of(flag, text, names))
        return text

    return convert


def choices(flag: str, known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Argument type: several of the known names, separated by commas."""
    one = choice(flag, known)

    def convert(text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one(part.strip()) for part in text.split(",")))

    return convert


def assignment(text: str) -> str:
    """Argument type: a configuration override, "a.b=value"."""
    key, equals, _ = text.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key, re.ASCII):
        raise UsageError(f"--set needs KEY=VALUE, such as stages.coarse.steps=300 (got '{text}').")
    return text


def device(text: str) -> str:
    """Argument type: a device by name; whether it is there is for `require_device`."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        nearest = " Did you mean 'cuda'?" if text.startswith("gpu") else did_you_mean(text, DEVICES)
        raise UsageError(f"--device: '{text}' is not one of {', '.join(DEVICES)}.{nearest}")
    return text


def require_device(name: str) -> None:
    """Raise a MissingError if a CUDA device was asked for that is not there. Loads torch only then."""
    if not name.startswith("cuda"):
        return
    import torch

    if torch.version.cuda is None:
        raise MissingError(
            f"--device {name}: this torch ({torch.__version__}) has no CUDA. "
            "Use --device cpu, or install a CUDA build of torch; details: dream3d doctor"
        )
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == 0:
        raise MissingError(f"--device {name}: torch sees no CUDA device. Use --device cpu; details: dream3d doctor")
    if ":" in name and int(name.partition(":")[2]) >= found:
        raise MissingError(f"--device {name}: there are {found} CUDA devices, cuda:0 to cuda:{found - 1}.")


def open_run(args: argparse.Namespace, changes: Sequence[str] = ()) -> tuple[RunFolder, Pipeline]:
    """The run that `args.run` names, and the pipeline of its configuration on the device that was asked for.

    `changes` are overrides, "a.b=value"; without a device in `args` it is the run's.

    Raises:
        RunFolderError: no such run, or its configuration is damaged.
        MissingError: the device is not there.
    """
    run = find(args.run, args.out)
    if not run.config.is_file():
        raise RunFolderError(f"{run.config} is missing: the run cannot be opened again.")
    require_device(args.device or "auto")
    from dream3d import config

    device = [f"device={args.device}"] if args.device else []
    try:
        pipeline, _ = config.load(run.config, [*device, f"quiet={json.dumps(args.quiet)}", *changes])
    except InputError as error:
        raise RunFolderError(f"{run.path}: {error}") from error
    return run, pipeline


def add_out(parser: Parser) -> None:
    parser.add_argument("--out", metavar="DIR", default="outputs", help="where the runs are (default: outputs)")


def add_common(parser: Parser) -> None:
    """The flags that every command understands."""
    group = parser.add_argument_group("common")
    noise = group.add_mutually_exclusive_group()
    noise.add_argument("-q", "--quiet", action="store_true", help="only results and errors")
    noise.add_argument("-v", "--verbose", action="store_true", help="more detail; errors with their traceback")
    group.add_argument("--json", action="store_true", help="the last line of the output is JSON")
    group.add_argument("--no-color", action="store_true", help="no colours (NO_COLOR does the same)")


def add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device", type=device, default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:INDEX (default: auto)"
    )


def set_logging(args: argparse.Namespace) -> None:
    """Let the package's warnings through to standard error (with -v also what it does, with -q nothing)."""
    logger = logging.getLogger("dream3d")
    logger.setLevel(logging.INFO if args.verbose else logging.ERROR if args.quiet else logging.WARNING)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)


def add_request(parser: Parser) -> None:
    """Arguments of the commands that ask a run for something."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, or latest")
    add_out(parser)
    add_common(parser)


def request(args: argparse.Namespace, what: Request, answer: str) -> int:
    """Ask the run that is meant, and say what it will do; `answer` has its folder's place in it."""
    from dream3d.control import ask

    found = find(args.run, args.out)
    ask(found, what)
    if not args.quiet:
        say(answer.format(run=found.path))
    return 0


def say(text: str = "") -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say_json(value: Mapping[str, object] | Sequence[object]) -> None:
    say(json.dumps(value, ensure_ascii=False, default=str))


def coloured(text: str, colour: str) -> str:
    """Text in "red", "green" or "yellow", where standard output is a terminal that wants it."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    code = {"red": 31, "green": 32, "yellow": 33}[colour]
    return f"\033[{code}m{text}\033[0m"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned columns; the last one is as long as it likes."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]


def size_of(count: float) -> str:
    """Bytes in words: 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
