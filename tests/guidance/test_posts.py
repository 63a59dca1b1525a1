"""What is done to gradients."""

from __future__ import annotations

import pytest
import torch

from dream3d.checks import InputError
from dream3d.guidance import Clamp, PictureClip, PixelClip

G = torch.tensor([0.3, -0.04, 0.0, 0.01, 0.02, -0.05]).view(
    1, 3, 1, 2
)  # pixels (0.3, 0, 0.02) and (-0.04, 0.01, -0.05)


def test_pixel_clip_keeps_directions() -> None:
    got = PixelClip(limit=0.05)(G)
    assert torch.allclose(got[..., 0], G[..., 0] * (0.05 / 0.3)) and torch.equal(got[..., 1], G[..., 1])
    many = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    clipped = PixelClip(limit=0.5)(many)
    assert float(clipped.abs().max()) <= 0.5 + 1e-6
    cosine = torch.nn.functional.cosine_similarity(many, clipped, dim=1)
    assert torch.allclose(cosine, torch.ones_like(cosine), atol=1e-5)
    assert torch.equal(PixelClip()(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 3, 2, 2))


def test_one_pixel_does_not_shrink_another() -> None:
    """A clip of the whole picture would: its factor is one."""
    assert torch.equal(PixelClip(limit=0.05)(G)[..., 1], PixelClip(limit=0.05)(G * torch.tensor([9.0, 1.0]))[..., 1])


def test_picture_clip_has_one_factor() -> None:
    got = PictureClip(limit=0.05)(G)
    torch.testing.assert_close(got, G / 6)
    assert torch.equal(PictureClip(limit=0.3)(G), G)
    assert torch.equal(PictureClip()(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 3, 2, 2))


def test_clips_of_one_channel_as_the_paper_and_as_its_code() -> None:
    """TSM's depths: element by element, and by the smallest factor of the tensor; the same where none sticks out."""
    depth = torch.tensor([0.2, -0.01, 0.005]).view(1, 1, 1, 3)
    assert PixelClip(limit=0.01)(depth).flatten().tolist() == pytest.approx([0.01, -0.01, 0.005])
    assert PictureClip(limit=0.01)(depth).flatten().tolist() == pytest.approx([0.01, -0.0005, 0.00025])
    even = torch.full((1, 1, 2, 2), 0.2)
    torch.testing.assert_close(PixelClip(limit=0.01)(even), PictureClip(limit=0.01)(even))


def test_clamp() -> None:
    assert torch.equal(Clamp(limit=0.04)(G), G.clamp(-0.04, 0.04))
    with pytest.raises(InputError, match="Clamp: limit must be 0 or more"):
        Clamp(limit=-1)
