"""From a model's name to a folder with its files, and errors that say what is wrong before minutes are spent.

The folder and the cache are looked at here, before any hub client is asked: against an unreachable hub the client
retries for half a minute and then blames a missing config file.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dream3d.checks import MissingError
from dream3d.priors.known import KNOWN, OPENS, cache_folder, cached, offline

CURE = "Give a local folder with --prior DIR, or another id: dream3d priors"

HUB_SECONDS = 5.0
"""How long the hub may take to answer at all."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def local_folder(model: str, revision: str | None = None) -> Path | None:
    """The folder of a path or of a cached id, if it is on this machine; no network."""
    path = Path(model).expanduser()
    return path if path.is_dir() else cached(model, revision)


def opener(model: str) -> str:
    """Class of `dream3d.priors` that opens a folder or hub id: by its model_index.json where it is on this machine,
    else by the table of known ids, else "StableDiffusion"."""
    folder = local_folder(model)
    try:
        found = str(read_index(model, folder).get("_class_name")) if folder else ""
    except MissingError:  # said in full when it is opened
        found = ""
    if found in OPENS:
        return OPENS[found]
    return KNOWN[model].opens if model in KNOWN else "StableDiffusion"


def obtain(model: str, *, revision: str | None, files: Sequence[str], check: Callable[[Path], object]) -> Path:
    """The folder that holds `model`: a local folder, else the cache, else a download into the cache.

    Args:
        model: path of a folder, or "owner/name" on the hub.
        revision: branch, tag or commit on the hub.
        files: patterns of the files that are needed, for the download.
        check: called with the folder; raises MissingError when it is not usable.

    Raises:
        MissingError: it is not there or not usable, in one line with the cure.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        check(path)
        return path
    if path.exists():
        raise MissingError(f"prior '{model}' is a file; expected the folder of a diffusers pipeline. {CURE}")
    if not _HUB_ID.fullmatch(model):
        raise MissingError(f"prior '{model}' not found: no such folder. {CURE}")
    snapshot = cached(model, revision)
    if snapshot is not None:
        try:
            check(snapshot)
            return snapshot
        except MissingError:
            if offline():
                raise
    known = KNOWN.get(model)
    if known is not None and known.state == "removed":
        same = f" The same weights: {known.instead}." if known.instead else ""
        raise MissingError(f"prior '{model}' not found: its owner removed it in {known.removed}.{same} {CURE}")
    if offline():
        raise MissingError(
            f"prior '{model}' not found: HF_HUB_OFFLINE=1 and it is not in the cache ({cache_folder()}). {CURE}"
        )
    folder = _download(model, revision, files)
    check(folder)
    return folder


def _download(model: str, revision: str | None, files: Sequence[str]) -> Path:
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # it answered, which is all that was asked
    except OSError as error:
        raise MissingError(
            f"prior '{model}' not found: it is not in the cache ({cache_folder()}) and {endpoint} does not answer "
            f"({getattr(error, 'reason', error)}). {CURE}"
        ) from error

    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=list(files)))
    except errors.GatedRepoError as error:
        raise MissingError(
            f"prior '{model}' needs you to accept its terms on the model page and log in: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise MissingError(f"prior '{model}' not found: the hub has no such id (or it is private). {CURE}") from error
    except errors.RevisionNotFoundError as error:
        raise MissingError(f"prior '{model}' has no revision '{revision}'.") from error
    except (OSError, errors.EntryNotFoundError) as error:
        raise MissingError(f"prior '{model}': the download failed ({first_line(error)}). Run it again.") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without a full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(". ")


def read_json(model: str, path: Path) -> dict:
    """A JSON object of a model's folder.

    Raises:
        MissingError: no such file, or not JSON.
    """
    if not path.is_file():
        raise MissingError(f"prior '{model}': {path.parent.name}/{path.name} is missing. {CURE}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingError(f"prior '{model}': {path} is damaged ({first_line(error)}). Fetch it again.") from error
    if not isinstance(value, dict):
        raise MissingError(f"prior '{model}': {path} is damaged (not a JSON object). Fetch it again.")
    return value


def read_index(model: str, folder: Path) -> dict:
    """The model_index.json of a pipeline's folder: a library and a class for each of its parts.

    Raises:
        MissingError: it is not such a folder, or damaged.
    """
    if not (folder / "model_index.json").is_file():
        raise MissingError(
            f"prior '{model}' is not a diffusers pipeline: there is no model_index.json in it. "
            "A single .safetensors or .ckpt checkpoint must be converted to a diffusers folder first."
        )
    return read_json(model, folder / "model_index.json")


def class_in(index: Mapping[str, Any], name: str) -> str | None:
    """Class that a model_index.json gives a part; None where there is no such part."""
    return (index.get(name) or [None, None])[1]


def licence_of(folder: Path | None) -> str:
    """The licence that the folder's model card names."""
    readme = folder / "README.md" if folder else None
    if readme is not None and readme.is_file():
        for line in readme.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
            if line.startswith("license:") and line.partition(":")[2].strip():
                return line.partition(":")[2].strip()
    return "unknown: see the model card"


def weights_variant(model: str, folder: Path, stem: str, variant: str | None) -> str | None:
    """Find and check the safetensors weights of one network; return their variant ("fp16", say) or None.

    Only headers are read. A plain file is preferred; without one, a lone half-precision file serves.

    Args:
        folder: of the network, such as `.../unet`.
        stem: "diffusion_pytorch_model" (diffusers) or "model" (transformers).
        variant: the one that is wanted, or None for any.

    Raises:
        MissingError: missing, incomplete or damaged weights.
    """
    for found in (variant,) if variant else (None, "fp16"):
        dotted = f".{found}" if found else ""
        single = folder / f"{stem}{dotted}.safetensors"
        index = folder / f"{stem}.safetensors.index{dotted}.json"
        if single.is_file():
            _check_safetensors(model, single)
            return found
        if index.is_file():
            for shard in sorted(set(read_json(model, index).get("weight_map", {}).values())):
                _check_safetensors(model, folder / shard)
            return found
    wanted = f"{stem}{f'.{variant}' if variant else ''}.safetensors"
    pickled = any(folder.glob(f"{stem}*.bin"))
    why = " (only pickled .bin weights, which dream3d does not open)" if pickled else ""
    raise MissingError(f"prior '{model}': {folder.name}/{wanted} is missing{why}. {CURE}")


def _check_safetensors(model: str, path: Path) -> None:
    """Compare a file's length with what its header promises: finds cut downloads without reading the weights."""
    name = f"prior '{model}': {path.parent.name}/{path.name}"
    if not path.is_file():
        raise MissingError(f"{name} is missing. Fetch it again.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version"):
            raise MissingError(f"{name} is a git-lfs pointer, not the weights: git lfs pull")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise MissingError(f"{name} is damaged (unexpected end after {size} bytes). Fetch it again.")
        try:
            header = json.loads(file.read(length))
            end = max((row["data_offsets"][1] for key, row in header.items() if key != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MissingError(f"{name} is damaged (unreadable header). Fetch it again.") from error
    if size != 8 + length + end:
        raise MissingError(f"{name} is damaged ({size} bytes, its header promises {8 + length + end}). Fetch it again.")
