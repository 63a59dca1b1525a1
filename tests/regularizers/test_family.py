"""What all regularisers have in common."""

import pytest
import torch
import trimesh

from dream3d.guidance.time import Ramp
from dream3d.layouts import Part
from dream3d.regularizers import Regularizer, SketchShape
from dream3d.regularizers.splats import Inside, OpacityL1, ScaleL1
from dream3d.regularizers.triangles import EdgeLength, Laplacian, NormalConsistency, SignChanges, Spread
from dream3d.representations import Gaussians, SDFField, Tets
from dream3d.representations.gaussians import point_splats
from dream3d.types import Render

CHANNELS = {
    "albedo": 0.5 * torch.rand(1, 4, 4, 3),
    "metallic": torch.full((1, 4, 4, 1), 0.25),
    "distortion": torch.rand(1, 4, 4, 1),
    "away": torch.rand(1, 4, 4, 1),
}
OF_SPLATS, OF_TRIANGLES = (Inside, OpacityL1, ScaleL1), (EdgeLength, Laplacian, NormalConsistency, SignChanges, Spread)


def representation(family):
    """One that the regulariser is for."""
    if family in OF_SPLATS:
        cube = Part(text="a cube", center=(0.0, 0.0, 0.0), size=(0.1, 0.1, 0.1))
        return Gaussians(point_splats(torch.rand(9, 3)), parts={"cube": cube})
    if family in OF_TRIANGLES:
        return Tets(resolution=4, extraction="flexicubes", levels=1, log2_table=4)
    return SDFField(levels=2, log2_table=8, base=4, finest=16, hidden=8, occupancy=16)


@pytest.mark.parametrize("family", Regularizer.__subclasses__())
def test_weights_follow_their_ramp(family, tmp_path):
    trimesh.creation.icosphere(subdivisions=1).export(tmp_path / "ball.ply")
    given = {"mesh": str(tmp_path / "ball.ply")} if family is SketchShape else {}
    toward = torch.tensor([0.0, 0, 1]).expand(1, 4, 4, 3)
    aux = {"view": toward, **CHANNELS}
    render = Render(torch.zeros(1, 4, 4, 3), torch.full((1, 4, 4, 1), 0.5), torch.rand(1, 4, 4, 1), toward, aux)
    regularizer, made = family(weight=Ramp(start=0.0, end=2.0, steps=10), **given), representation(family)
    assert regularizer(made, render, 0).item() == 0
    torch.manual_seed(0)
    weighted = regularizer(made, render, 20).item()
    torch.manual_seed(0)
    assert weighted == pytest.approx(2 * regularizer.loss(made, render).item())
