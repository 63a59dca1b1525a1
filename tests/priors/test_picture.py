from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dream3d.checks import InputError
from dream3d.priors.picture import CLIP_MEAN, CLIP_STD, clip_pixels, read_picture


def test_transparent_becomes_white_and_the_picture_square(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[1, 3] = (0, 0, 0, 51)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_picture(str(tmp_path / "a.png"))
    expected = torch.ones(1, 3, 4, 4)
    expected[0, :, 1, 0] = torch.tensor([1.0, 0.0, 0.0])
    expected[0, :, 2, 3] = 0.8
    assert torch.allclose(read, expected)


def test_an_opaque_background_goes_on(tmp_path: Path) -> None:
    Image.new("RGB", (2, 4), (0, 51, 255)).save(tmp_path / "a.png")
    read = read_picture(str(tmp_path / "a.png"))
    assert torch.allclose(read, torch.tensor([0.0, 0.2, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4))


def test_what_is_no_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    for name in ("a.png", "none.png"):
        with pytest.raises(InputError, match=f"{name}' cannot be read; expected a PNG") as error:
            read_picture(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_clip_sees_what_its_own_processor_makes() -> None:
    from transformers import CLIPImageProcessorPil

    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(1, 3, 6, 6, generator=generator)
    image = (torch.nn.functional.interpolate(smooth, (64, 64), mode="bilinear") * 255).round().byte()
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = processor(Image.fromarray(image[0].permute(1, 2, 0).numpy()), return_tensors="pt").pixel_values
    ours = clip_pixels(image / 255, 32)
    assert torch.allclose(ours, expected, atol=0.03)
    std, mean = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_STD, CLIP_MEAN))
    assert 0 <= float((ours * std + mean).min()) and float((ours * std + mean).max()) <= 1
