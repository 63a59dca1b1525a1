from collections.abc import Callable

import pytest
import torch

from dream3d.types import Splats

Make = Callable[..., Splats]


@pytest.fixture
def make() -> Make:
    """`make(number, degree)`: Gaussians as training leaves them, within a metre or so."""

    def splats(number: int = 700, degree: int = 3, seed: int = 0) -> Splats:
        random = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=random)

        return Splats(
            means=0.4 * normal(number, 3),
            quaternions=torch.nn.functional.normalize(normal(number, 4), dim=-1),
            scales=torch.exp(-4 + normal(number, 3)),
            opacities=torch.rand(number, generator=random),
            sh=torch.cat([normal(number, 1, 3), 0.2 * normal(number, (degree + 1) ** 2 - 1, 3)], dim=1),
        )

    return splats


def angles(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of the rotations between unit quaternions, radians."""
    return 2 * torch.acos((a.double() * b.double()).sum(dim=-1).abs().clamp(max=1))


@pytest.fixture
def turn() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """The largest angle between two lists of rotations, radians."""
    return lambda a, b: float(angles(a, b).max())


@pytest.fixture
def as_gsplat() -> Callable[[Splats], dict[str, torch.Tensor]]:
    """Arguments of gsplat's exporter: logits and logarithms."""

    def arguments(splats: Splats) -> dict[str, torch.Tensor]:
        return {
            "means": splats.means,
            "quats": splats.quaternions,
            "scales": splats.scales.log(),
            "opacities": splats.opacities.logit(),
            "sh0": splats.sh[:, :1],
            "shN": splats.sh[:, 1:],
        }

    return arguments
