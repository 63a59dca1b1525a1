"""A run folder made by hand: two stages, an open box for an asset, and a prompt that would like to be a script."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dream3d.export import check
from dream3d.gltf import write_glb, write_textures
from dream3d.media import write_film, write_picture
from dream3d.meshing import vertex_normals
from dream3d.runs import RunFolder
from dream3d.types import Material, Mesh

PROMPT = "</script><script>alert('a red chair & more')</script>"
CONFIG = """\
prompt: a red chair
stages:
  coarse:
    representation: {class_path: Field, init_args: {levels: 4}}
    prior: {class_path: Builtin}
    objective: {class_path: SDS, init_args: {guider: {class_path: CFG, init_args: {scale: SCALE}}}}
  fine:
    objective: ISM
seed: 3
"""


def box(*, lid: bool = False) -> Mesh:
    """A cube with UVs and textures; its top is open unless it has a lid."""
    points = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]) / 2
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (0, 2, 6, 4), (1, 5, 7, 3), *([(2, 3, 7, 6)] if lid else [])]
    faces = torch.tensor([face for a, b, c, d in sides for face in ((a, b, c), (a, c, d))])
    mesh = Mesh(points[faces.flatten()], torch.arange(faces.numel()).view(-1, 3))
    ramp = torch.linspace(0, 1, 8)[:, None, None].expand(8, 8, 3).contiguous()
    uv = torch.rand(len(mesh.vertices), 2, generator=torch.Generator().manual_seed(0))
    orm = torch.tensor([1.0, 0.5, 0.0]).expand(8, 8, 3).contiguous()
    return replace(mesh, uv=uv, normals=vertex_normals(mesh), material=Material(base_color=ramp, orm=orm))


def metrics(path: Path) -> None:
    """20 steps of the first stage and 10 of the second; a NaN, and a step that was repeated."""
    columns = ["stage", "step", "loss", "opacity", "grad_norm", "sparsity"]
    rows = [
        ["coarse", 10, 4.5, 0.2, 3.0, 1.5],
        ["coarse", 20, 99.0, 0.3, 2.0, 1.25],
        ["coarse", 20, "", 0.005, 2.0, 1.0],
        ["fine", 10, 1.5, 0.25, 1.0, ""],
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def make(out: Path, *, prompt: str = PROMPT, scale: float = 7.5, lid: bool = False) -> RunFolder:
    run = RunFolder.create(out, "a red chair", "sds")
    run.update(
        status="done", prompt=prompt, negative="", seed=3, seconds=149.0, peak_memory_gb=1.25, device="cpu",
        steps={"coarse": 20, "fine": 10}, priors=[{"name": "builtin", "licence": "Apache-2.0 (weights)"}],
    )  # fmt: skip
    run.config.write_text(CONFIG.replace("SCALE", str(scale)))
    (run.path / "command.txt").write_text("dream3d generate 'a red chair' --seed 3\n")
    metrics(run.path / "metrics.csv")
    red = np.full((32, 32, 3), (255, 0, 0), np.uint8)
    for name in ("front", "left", "back", "right"):
        write_picture(run.final / f"{name}.png", red)
    write_film(run.final / "turntable.mp4", [red] * 4)
    for step, level in ((0, 0), (15, 25), (30, 25)):  # the reading judge takes a tenth of red for the second name
        write_picture(run.progress / f"step{step:06d}.jpg", np.full((16, 64, 3), (level, 0, 0), np.uint8))
    looks = run.path / "save" / "microscope"
    looks.mkdir()
    record = {"stage": "coarse", "step": 0, "tiles": ["rendering", "noised"], "t": [0.5, 0.25]}
    record |= {"norms": {"residual": 2.0, "text": 0.5}, "cosines": {"residual · text": 0.75}}
    (looks / "step000000.json").write_text(json.dumps(record))
    write_picture(looks / "step000000.jpg", np.zeros((16, 32, 3), np.uint8))
    (looks / "step000015.json").write_text(json.dumps({"stage": "coarse", "step": 15, "reason": "it was dark."}))
    mesh = box(lid=lid)
    write_glb(mesh, run.export / "chair.glb", {"prompt": prompt})
    write_textures(mesh.material or Material(), run.export / "textures")
    (run.export / "check.json").write_text(json.dumps(check(mesh, [run.export / "chair.glb"])))
    return run


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make(tmp_path_factory.mktemp("report") / "outputs")


@pytest.fixture
def run(template: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of its own for every test."""
    path = tmp_path / Path(*template.path.parts[-3:])
    shutil.copytree(template.path, path)
    return RunFolder(path)
