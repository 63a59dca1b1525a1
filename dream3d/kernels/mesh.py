"""The mesh kernels as autograd ops, with the twins of mesh_reference.py behind them wherever no library serves.

Same names, signatures and results as mesh_reference.py, which documents them; `library` as in ops.py. On a CPU all
results have the same bytes for any number of threads; on CUDA the last bits of gradients vary: atomic additions.

    projected = project_vertices(mesh.vertices, cameras)
    fragments = rasterise(projected, mesh.faces)
    colour = interpolate(colours, mesh.faces, fragments)
    image = antialias(torch.cat([colour, fragments.mask], dim=-1), fragments, projected, mesh.faces)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor
from torch.autograd import Function

from dream3d.kernels import mesh_reference as reference
from dream3d.kernels.build import Library
from dream3d.kernels.mesh_reference import find_neighbours
from dream3d.kernels.mesh_types import (
    Fragments,
    ProjectedVertices,
    check_antialias,
    check_interpolate,
    check_mip_levels,
    check_project_vertices,
    check_rasterise,
    projection_matrices,
)
from dream3d.kernels.ops import library_for, refuse_second_derivative
from dream3d.types import Cameras

__all__ = [
    "Fragments",
    "ProjectedVertices",
    "antialias",
    "find_neighbours",
    "interpolate",
    "mip_levels",
    "project_vertices",
    "rasterise",
]


def project_vertices(
    vertices: Float[Tensor, "V 3"], cameras: Cameras, *, library: Library | None = None
) -> ProjectedVertices:
    """As `mesh_reference.project_vertices`, differentiable once."""
    check_project_vertices(vertices, cameras)
    library = library_for(vertices, library)
    if library is None:
        return reference.project_vertices(vertices, cameras)
    points = _Project.apply(vertices, projection_matrices(cameras, vertices), library)
    return ProjectedVertices(points, cameras.height, cameras.width)


def rasterise(
    projected: ProjectedVertices,
    faces: Int[Tensor, "F 3"],
    *,
    near: float = 0.01,
    far: float = 1e10,
    library: Library | None = None,
) -> Fragments:
    """As `mesh_reference.rasterise`, differentiable once."""
    check_rasterise(projected, faces, near, far)
    library = library_for(projected.points, library)
    if library is None:
        return reference.rasterise(projected, faces, near=near, far=far)
    size = (projected.width, projected.height)
    return Fragments(*_Rasterise.apply(projected.points, _indices(faces), size, (near, far), library))


def interpolate(
    attributes: Float[Tensor, "V C"] | Float[Tensor, "B V C"],
    faces: Int[Tensor, "F 3"],
    fragments: Fragments,
    *,
    library: Library | None = None,
) -> Float[Tensor, "B H W C"]:
    """As `mesh_reference.interpolate`, differentiable once."""
    check_interpolate(attributes, faces, fragments)
    library = library_for(attributes, library)
    if library is None:
        return reference.interpolate(attributes, faces, fragments)
    return _Interpolate.apply(attributes, fragments.barycentrics, _indices(faces), fragments.face.contiguous(), library)


def mip_levels(
    projected: ProjectedVertices,
    faces: Int[Tensor, "F 3"],
    fragments: Fragments,
    uv: Float[Tensor, "T 2"],
    uv_faces: Int[Tensor, "F 3"],
    *,
    size: tuple[int, int],
    library: Library | None = None,
) -> Float[Tensor, "B H W"]:
    """As `mesh_reference.mip_levels`."""
    check_mip_levels(projected, faces, fragments, uv, uv_faces, size)
    library = library_for(uv, library)
    if library is None:
        return reference.mip_levels(projected, faces, fragments, uv, uv_faces, size=size)
    points = projected.points.detach().contiguous()
    levels = points.new_empty(fragments.face.shape)
    mesh = (*points.shape[:2], len(faces), projected.width, projected.height, points, _indices(faces))
    texture = (uv.detach().contiguous(), _indices(uv_faces), fragments.face.contiguous(), size[1], size[0])
    library("d3d_mesh_mip_levels", points, *mesh, *texture, levels)
    return levels


def antialias(
    colours: Float[Tensor, "B H W C"],
    fragments: Fragments,
    projected: ProjectedVertices,
    faces: Int[Tensor, "F 3"],
    *,
    neighbours: Int32[Tensor, "F 3"] | None = None,
    walk: int = 64,
    library: Library | None = None,
) -> Float[Tensor, "B H W C"]:
    """As `mesh_reference.antialias`, differentiable once."""
    neighbours = find_neighbours(faces) if neighbours is None else neighbours
    check_antialias(colours, fragments, projected, faces, neighbours, walk)
    library = library_for(colours, library)
    if library is None:
        return reference.antialias(colours, fragments, projected, faces, neighbours=neighbours, walk=walk)
    points = projected.points.detach().contiguous()
    mesh = (*points.shape[:2], len(faces), projected.width, projected.height, points, _indices(faces))
    codes = fragments.face.new_empty(*fragments.face.shape, 2)
    positions = points.new_empty(codes.shape)
    seen = (fragments.face.contiguous(), fragments.depth.detach().contiguous())
    library("d3d_mesh_silhouettes", points, *mesh, neighbours.contiguous(), *seen, walk, codes, positions)
    pairs = codes.view(-1).nonzero()[:, 0]
    crossings = (pairs, codes.view(-1)[pairs], positions.view(-1)[pairs])
    return _Antialias.apply(colours, projected.points, mesh, crossings, library)


def _indices(faces: Tensor) -> Tensor:
    return faces.to(torch.int32).contiguous()


class _Project(Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, matrices: Tensor, library: Library) -> Tensor:
        vertices = vertices.contiguous()
        points = vertices.new_empty(len(matrices), len(vertices), 3)
        library("d3d_mesh_project", vertices, len(matrices), len(vertices), matrices, vertices, points)
        ctx.save_for_backward(matrices)
        ctx.library = library
        return points

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        refuse_second_derivative("project_vertices", "mesh_reference")
        (matrices,) = ctx.saved_tensors
        g_vertices = gradient.new_empty(gradient.shape[1:])
        sizes = (len(matrices), gradient.shape[1])
        ctx.library("d3d_mesh_project_backward", gradient, *sizes, matrices, gradient.contiguous(), g_vertices)
        return g_vertices, None, None


class _Rasterise(Function):
    @staticmethod
    def forward(
        ctx: Any, points: Tensor, faces: Tensor, size: tuple[int, int], limits: tuple[float, float], library: Library
    ) -> tuple[Tensor, Tensor, Tensor]:
        points = points.contiguous()
        width, height = size
        sizes = (*points.shape[:2], len(faces), width, height)
        face = faces.new_empty(len(points), height, width)
        barycentrics, depth = points.new_empty(*face.shape, 3), points.new_empty(face.shape)
        boxes = torch.empty(len(points), len(faces), 4, dtype=torch.int16, device=points.device)
        workspace = torch.empty_like(face, dtype=torch.int64) if points.is_cuda else None
        library(
            "d3d_mesh_rasterise", points, *sizes, *limits, points, faces, boxes, workspace, face, barycentrics, depth
        )
        ctx.save_for_backward(points, faces, face, barycentrics)
        ctx.sizes, ctx.library = sizes, library
        ctx.mark_non_differentiable(face)
        ctx.set_materialize_grads(False)
        return face, barycentrics, depth

    @staticmethod
    def backward(ctx: Any, _: None, g_barycentrics: Tensor | None, g_depth: Tensor | None) -> Any:
        refuse_second_derivative("rasterise", "mesh_reference")
        points = ctx.saved_tensors[0]
        g_points = torch.zeros_like(points)  # the kernel adds into it
        incoming = [None if g is None else g.contiguous() for g in (g_barycentrics, g_depth)]
        ctx.library("d3d_mesh_rasterise_backward", points, *ctx.sizes, *ctx.saved_tensors, *incoming, g_points)
        return g_points, None, None, None, None


class _Interpolate(Function):
    @staticmethod
    def forward(
        ctx: Any, attributes: Tensor, barycentrics: Tensor, faces: Tensor, face: Tensor, library: Library
    ) -> Tensor:
        attributes, barycentrics = attributes.contiguous(), barycentrics.contiguous()
        rows, channels = attributes.shape[-2:]
        sizes = (len(face), face[0].numel() if len(face) else 0, rows, channels, int(attributes.ndim == 3))
        values = attributes.new_empty(*face.shape, channels)
        library("d3d_mesh_interpolate", attributes, *sizes, attributes, faces, face, barycentrics, values)
        ctx.save_for_backward(attributes, faces, face, barycentrics)
        ctx.sizes, ctx.library = sizes, library
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        refuse_second_derivative("interpolate", "mesh_reference")
        attributes, *_, barycentrics = ctx.saved_tensors
        g_attributes = torch.zeros_like(attributes) if ctx.needs_input_grad[0] else None
        g_barycentrics = torch.empty_like(barycentrics) if ctx.needs_input_grad[1] else None
        inputs = (*ctx.sizes, *ctx.saved_tensors, gradient.contiguous())
        ctx.library("d3d_mesh_interpolate_backward", attributes, *inputs, g_attributes, g_barycentrics)
        return g_attributes, g_barycentrics, None, None, None


class _Antialias(Function):
    @staticmethod
    def forward(
        ctx: Any,
        colours: Tensor,
        points: Tensor,
        mesh: tuple[Any, ...],
        crossings: tuple[Tensor, ...],
        library: Library,
    ) -> Tensor:
        colours = colours.contiguous()
        image = colours.clone()
        sizes = (len(crossings[0]), colours.shape[-1])
        library("d3d_mesh_antialias", colours, *mesh, *sizes, *crossings, colours, image)
        ctx.save_for_backward(*mesh[-2:], *crossings, colours)
        ctx.sizes, ctx.library = (mesh[:-2], sizes), library
        return image

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        refuse_second_derivative("antialias", "mesh_reference")
        points, faces, *crossings, colours = ctx.saved_tensors
        gradient = gradient.contiguous()
        g_colours = gradient.clone() if ctx.needs_input_grad[0] else None
        g_points = torch.zeros_like(points) if ctx.needs_input_grad[1] else None
        (scene, sizes), outgoing = ctx.sizes, (g_colours, g_points)
        inputs = (*scene, points, faces, *sizes, *crossings, colours, gradient)
        ctx.library("d3d_mesh_antialias_backward", colours, *inputs, *outgoing)
        return *outgoing, None, None, None
