"""nerfacc's CUDA sampler behind `March(backend="nerfacc")`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import MissingError
from dream3d.kernels.reference import Samples
from dream3d.representations.base import Volume


@torch.no_grad()
def sample(
    volume: Volume, origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"], step: float, stratified: bool
) -> Samples:
    """Packed samples from nerfacc's occupancy-grid traversal. The jitter is nerfacc's own.

    Raises:
        MissingError: the rays are not on a CUDA device, or nerfacc is not installed.
    """
    if origins.device.type != "cuda":
        raise MissingError("March: backend 'nerfacc' needs CUDA (its sampler has no CPU code). Use backend: dream3d.")
    try:
        from nerfacc import OccGridEstimator
    except ImportError as error:
        raise MissingError("March: backend 'nerfacc' is not installed: pip install nerfacc") from error
    r = volume.radius
    cells = volume.grid.cells
    box = torch.tensor([-r, -r, -r, r, r, r])
    estimator = OccGridEstimator(box, resolution=cells, levels=1).to(origins.device)
    # Its grid is indexed x, y, z; ours z, y, x.
    estimator.binaries = volume.occupancy.unpack().permute(2, 1, 0)[None].to(origins.device)
    ray, t_start, t_end = estimator.sampling(origins, directions, render_step_size=step, stratified=stratified)
    count = torch.bincount(ray, minlength=len(origins)).cumsum(0)
    return Samples(torch.nn.functional.pad(count, (1, 0)).to(torch.int32), t_start, t_end, ray.to(torch.int32))
