"""Losses of triangles, and of the grids that they come from."""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range, one_of
from dream3d.guidance.time import Ramp
from dream3d.nn.triangles import cotangent_laplacian, face_normals, mesh_edges, uniform_laplacian
from dream3d.regularizers.base import Regularizer
from dream3d.representations.base import Faceted, Representation
from dream3d.representations.tets import Tets
from dream3d.types import Mesh, Render


@final
class Laplacian(Regularizer):
    """Mean squared length of the Laplacian at the vertices: flat places stay flat, and triangles even.

    "uniform" (as nvdiffrec, arXiv:2111.12503) measures in edge lengths, mean squared: the
    same at any scale and any resolution. "cotangent" measures curvature (1/metre^2, 4/r^2 on a ball of radius r) and
    leaves triangles as they are.

    Args:
        weight: of this loss.
        kind: which Laplacian.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, kind: Literal["uniform", "cotangent"] = "uniform") -> None:
        self.weight = weight
        self.kind = one_of("Laplacian: kind", kind, ("uniform", "cotangent"))

    def loss(self, representation: Representation, render: Render) -> Tensor:
        mesh = _facets("Laplacian", representation)
        if self.kind == "cotangent":
            return cotangent_laplacian(mesh.vertices, mesh.faces).square().sum(1).mean()
        ends = mesh_edges(mesh.faces, len(mesh.vertices)).ends
        square = (mesh.vertices[ends[:, 0]] - mesh.vertices[ends[:, 1]]).detach().square().sum(1).mean()
        return uniform_laplacian(mesh.vertices, mesh.faces).square().sum(1).mean() / square.clamp_min(1e-20)


@final
class NormalConsistency(Regularizer):
    """Mean of 1 - cosine of the angle between faces that share an edge (as Magic3D, arXiv:2211.10440)."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        mesh = _facets("NormalConsistency", representation)
        pairs = mesh_edges(mesh.faces, len(mesh.vertices)).faces
        one, other = face_normals(mesh.vertices, mesh.faces)[pairs[pairs[:, 0] >= 0]].unbind(1)
        return (1 - (one * other).sum(1)).sum() / max(1, len(one))


@final
class EdgeLength(Regularizer):
    """Mean squared difference of the edges' lengths from a target (metres^2); 0 shrinks them (Pixel2Mesh,
    arXiv:1804.01654).

    Args:
        weight: of this loss.
        target: metres.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, target: float = 0.0) -> None:
        in_range("EdgeLength: target", target, 0)
        self.weight = weight
        self.target = target

    def loss(self, representation: Representation, render: Render) -> Tensor:
        mesh = _facets("EdgeLength", representation)
        a, b = mesh.vertices[mesh_edges(mesh.faces, len(mesh.vertices)).ends].unbind(1)
        # The norm's gradient at length 0 is not a number.
        return (((a - b).square().sum(1) + 1e-20).sqrt() - self.target).square().mean()


@final
class SignChanges(Regularizer):
    """Cross-entropy between the two ends of each grid edge that the surface of `Tets` crosses: fewer of them, so no
    floaters and no inner walls (nvdiffrec, arXiv:2111.12503; FlexiCubes, arXiv:2308.05371)."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        ends = _grid("SignChanges", representation).ends()
        return 2 * functional.binary_cross_entropy_with_logits(ends, (ends.detach().flip(1) > 0).to(ends))


@final
class Spread(Regularizer):
    """How uneven the crossings lie around FlexiCubes' vertices, mean absolute deviation in cells: better shaped
    triangles, and no flaps (L_dev of arXiv:2308.05371)."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        return _grid("Spread", representation).spread().mean()


def _facets(who: str, representation: Representation) -> Mesh:
    if not isinstance(representation, Faceted):
        raise InputError(f"{who} needs triangles (Tets, Shell), not {type(representation).__name__}.")
    return representation.facets()


def _grid(who: str, representation: Representation) -> Tets:
    if not isinstance(representation, Tets):
        raise InputError(f"{who} needs the grid of Tets, not {type(representation).__name__}.")
    return representation
