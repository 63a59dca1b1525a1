import numpy as np
import torch

from dream3d.nn import color
from dream3d.srgb import SEAM, to_linear, to_srgb


def test_known_values_and_the_way_back() -> None:
    codes = np.concatenate([np.linspace(0, 1, 1001), [SEAM, np.nextafter(SEAM, 1)]])
    np.testing.assert_allclose(to_srgb(to_linear(codes)), codes, rtol=0, atol=1e-15)
    assert np.allclose(to_srgb(np.array([0.0, 0.0031308, 0.2140411, 1.0])), [0, 0.04045, 0.5, 1], atol=1e-5)
    assert np.allclose(to_linear([0.0, 0.02, 0.5, 1.0]), [0, 0.02 / 12.92, 0.2140411, 1], atol=1e-7)


def test_arrays_and_tensors_have_the_same_colours() -> None:
    values = torch.linspace(0, 1, 1001, dtype=torch.float64)
    np.testing.assert_allclose(to_linear(values.numpy()), color.to_linear(values).numpy(), rtol=1e-15)
    np.testing.assert_allclose(to_srgb(values.numpy()), color.to_srgb(values).numpy(), rtol=1e-14, atol=1e-15)
