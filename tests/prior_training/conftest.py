"""A training set of three solids, a words' table of a dozen words, and a network of a few thousand weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.evaluation.surfaces import Surface
from dream3d.prior_training.captions import SOLIDS
from dream3d.prior_training.members import MEMBERS, architecture
from dream3d.prior_training.pictures import Drawing, build
from dream3d.prior_training.subjects import Credit, Source, solid
from dream3d.priors.static_text import StaticText

WORDS = ["[PAD]", "[UNK]", "a", "red", "blue", "cube", "sphere", "cone", "##s", "photo", "of", "ball"]


class Solids(Source):
    """Sphere, cube and cone."""

    @property
    def credits(self) -> Sequence[Credit]:
        return [Credit(s) for s in SOLIDS if s.name in ("sphere", "cube", "cone")]

    def surface(self, index: int) -> Surface:
        return solid(self.credits[index].subject.name)


@pytest.fixture(scope="session")
def solids() -> Solids:
    return Solids()


@pytest.fixture(scope="session")
def words() -> StaticText:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(len(WORDS), 16, generator=generator), dim=1)
    weights = torch.tensor([0.02 if w in ("a", "of", "photo") or w.startswith("[") else 1.0 for w in WORDS])
    return StaticText(WORDS, vectors, weights)


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    return architecture(MEMBERS["builtin"], words=16, channels=(16, 16, 16))


@pytest.fixture(scope="session")
def tiny_autoencoder() -> dict[str, Any]:
    from dream3d.prior_training.members import AUTOENCODER

    return {**AUTOENCODER, "block_out_channels": [16, 20, 24]}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory, solids: Solids) -> Path:
    """8 views each, 64 pixels."""
    folder = tmp_path_factory.mktemp("priordata")
    build(solids, folder, Drawing(views=8), say=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def rendered_large(tmp_path_factory: pytest.TempPathFactory, solids: Solids) -> Path:
    """8 views each, 128 pixels."""
    folder = tmp_path_factory.mktemp("priordata")
    build(solids, folder, replace(Drawing(views=8), size=128), say=lambda _: None)
    return folder
