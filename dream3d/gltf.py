"""Mesh files: GLB (glTF 2.0 binary), OBJ with its material, and the texture images; written atomically.

The same mesh gives the same bytes: no timestamps, no random identifiers, no order that depends on hashing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dream3d import __version__
from dream3d.checks import InputError
from dream3d.runs import write_atomically
from dream3d.srgb import to_linear
from dream3d.texturing import tangents
from dream3d.types import Material, Mesh

JSON = str | int | float | bool | None | list[Any] | dict[str, Any]

# glTF's numbers: linear filters with mipmaps; an atlas must not wrap around.
SAMPLER = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
STRIDE = {"VEC2": 8, "VEC3": 12, "VEC4": 16}

TEXTURES = {"base_color": "basecolor.png", "orm": "orm.png", "normal": "normal.png"}


def write_glb(mesh: Mesh, path: Path, extras: Mapping[str, JSON], *, unlit: bool = False) -> None:
    """One mesh, one material, textures inside; y-up, front +Z, metres.

    A mesh without UVs is written with its vertex colours. `normals` are required for textured meshes.

    Args:
        mesh: the surface; `material` images become PNG.
        path: file to write.
        extras: JSON values for the asset and the scene (prompt, seed, ...); never paths or user names.
        unlit: KHR_materials_unlit: the baked colours as they are, for viewers whose light would shade them twice.

    Raises:
        InputError: the mesh is empty, or `extras` is not JSON.
    """
    import trimesh

    if not len(mesh.faces):
        raise InputError("write_glb: expected at least one triangle, got none.")
    extras = _checked_json(extras)
    surface = trimesh.Trimesh(
        mesh.vertices.detach().cpu().numpy(),
        mesh.faces.detach().cpu().numpy(),
        vertex_normals=None if mesh.normals is None else mesh.normals.detach().cpu().numpy(),
        process=False,
    )
    if mesh.uv is not None:
        uv = mesh.uv.detach().cpu().double().numpy()
        # trimesh keeps v upwards and turns it around again when it writes.
        flipped = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)
        surface.visual = trimesh.visual.TextureVisuals(flipped, material=_pbr(mesh.material or Material(), unlit))
        if mesh.material is not None and mesh.material.normal is not None and not unlit:
            surface.vertex_attributes["TANGENT"] = tangents(mesh).numpy()
    elif mesh.colors is not None:
        colors = mesh.colors.detach().cpu().double().clamp(0, 1).numpy()
        surface.vertex_attributes["COLOR_0"] = to_linear(colors).astype(np.float32)  # as glTF wants it
    data = trimesh.exchange.gltf.export_glb(
        surface.scene(),
        include_normals=mesh.normals is not None,
        tree_postprocessor=lambda tree: _finish(tree, path.stem, extras, unlit),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)


def write_obj(mesh: Mesh, path: Path) -> list[Path]:
    """Wavefront OBJ with an MTL beside it and PNGs in `textures/`; returns every file written.

    Positions are shared across UV seams, so a closed surface stays closed. MTL has no packed maps: roughness and
    metalness become their means (Pr, Pm). A mesh without UVs carries its colours behind the positions (sRGB-coded).
    """
    if not len(mesh.faces):
        raise InputError("write_obj: expected at least one triangle, got none.")
    vertices = mesh.vertices.detach().cpu().float().numpy()
    corner = mesh.faces.detach().cpu().numpy()
    lines = [f"# dream3d {__version__}: y-up, front +Z, metres"]
    if mesh.uv is None:
        colors = [] if mesh.colors is None else [mesh.colors.detach().cpu().numpy()]
        position = corner
        lines += _rows("v", np.concatenate([vertices, *colors], axis=1))
    else:
        lines += [f"mtllib {path.stem}.mtl"]
        points, first, new_of = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
        position = new_of.reshape(-1)[corner]
        uv = mesh.uv.detach().cpu().double().numpy()
        lines += _rows("v", points) + _rows("vt", np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1))
    if mesh.normals is not None:
        lines += _rows("vn", mesh.normals.detach().cpu().numpy())
    if mesh.uv is not None:
        lines += ["usemtl dream3d"]
    texture = "{1}" if mesh.uv is not None else ""
    normal = "{1}" if mesh.normals is not None else ""
    form = f"{{0}}/{texture}/{normal}" if normal else (f"{{0}}/{texture}" if texture else "{0}")
    names = [[form.format(p + 1, c + 1) for p, c in zip(ps, cs, strict=True)]
             for ps, cs in zip(position.tolist(), corner.tolist(), strict=True)]  # fmt: skip
    lines += ["f " + " ".join(name) for name in names]
    written = []
    path.parent.mkdir(parents=True, exist_ok=True)
    if mesh.uv is not None:
        material = mesh.material or Material()
        written += write_textures(material, path.parent / "textures")
        write_atomically(path.with_suffix(".mtl"), _mtl(material))
        written.append(path.with_suffix(".mtl"))
    write_atomically(path, "\n".join(lines) + "\n")
    return [path, *written]


def write_textures(material: Material, folder: Path) -> list[Path]:
    """The material's images as 8-bit PNG: basecolor.png, orm.png, normal.png."""
    written = []
    for field, name in TEXTURES.items():
        image = getattr(material, field)
        if image is not None:
            data = io.BytesIO()
            _picture(image).save(data, format="PNG")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, data.getvalue())
            written.append(folder / name)
    return written


def _checked_json(extras: Mapping[str, JSON]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(extras), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"extras: expected JSON values, got something else ({error}).") from None


def _picture(image: Float[Tensor, "H W 3"]):
    from PIL import Image

    levels = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte().numpy()
    return Image.fromarray(np.ascontiguousarray(levels))


def _pbr(material: Material, unlit: bool):
    import trimesh

    def picture(image: Tensor | None):
        return None if image is None else _picture(image)

    orm = None if unlit else picture(material.orm)
    return trimesh.visual.material.PBRMaterial(
        name="dream3d",
        baseColorTexture=picture(material.base_color),
        metallicRoughnessTexture=orm,
        occlusionTexture=orm,
        normalTexture=None if unlit else picture(material.normal),
        metallicFactor=float(material.metallic),
        roughnessFactor=float(material.roughness),
        alphaMode="OPAQUE",
        doubleSided=False,
    )


def _finish(tree: dict[str, Any], name: str, extras: dict[str, Any], unlit: bool) -> None:
    """What trimesh leaves open: who made it, semantic names, buffer targets, sampler, one node, one image a texture."""
    told = {"extras": extras} if extras else {}
    tree["asset"] = {"version": "2.0", "generator": f"dream3d {__version__}", **told}
    # Blender shows a scene's extras as custom properties; most others look at the asset's.
    tree["scenes"] = [{"nodes": [0], **told}]
    tree["nodes"] = [{"name": name, "mesh": 0}]
    tree["meshes"][0].pop("extras", None)
    tree["meshes"][0]["name"] = name
    primitive = tree["meshes"][0]["primitives"][0]
    names = {"_TANGENT": "TANGENT", "_COLOR_0": "COLOR_0"}
    primitive["attributes"] = {names.get(k, k): i for k, i in primitive["attributes"].items()}
    for index in primitive["attributes"].values():
        accessor = tree["accessors"][index]
        view = tree["bufferViews"][accessor["bufferView"]]
        view["target"] = ARRAY_BUFFER
        # Required when two attributes happen to hold the same bytes and so share a view (a unit sphere's normals).
        view["byteStride"] = STRIDE[accessor["type"]]
    indices = tree["accessors"][primitive["indices"]]
    tree["bufferViews"][indices["bufferView"]]["target"] = ELEMENT_ARRAY_BUFFER
    if tree.get("textures"):
        tree["samplers"] = [SAMPLER]
        _share_images(tree)
    if unlit:
        plain: list[dict[str, Any]] = [{"name": "dream3d"}]
        tree.setdefault("materials", plain)[0]["extensions"] = {"KHR_materials_unlit": {}}
        primitive["material"] = 0
        tree["extensionsUsed"] = ["KHR_materials_unlit"]


def _share_images(tree: dict[str, Any]) -> None:
    """trimesh lists the ORM picture once for each slot; let both slots name one texture."""
    material = tree["materials"][0]
    slots = [material["pbrMetallicRoughness"], material]
    named = {}
    for holder in slots:
        for slot, info in holder.items():
            if slot.endswith("Texture"):
                view = tree["images"][tree["textures"][info["index"]]["source"]]["bufferView"]
                info["index"] = named.setdefault(view, len(named))
    tree["images"] = [{"bufferView": view, "mimeType": "image/png"} for view in named]
    tree["textures"] = [{"source": i, "sampler": 0} for i in range(len(named))]


def _rows(key: str, values: NDArray) -> list[str]:
    return [key + " " + " ".join(f"{x:.7g}" for x in row) for row in values.tolist()]


def _mtl(material: Material) -> str:
    rough, metal = material.roughness, material.metallic
    if material.orm is not None:
        rough, metal = rough * float(material.orm[..., 1].mean()), metal * float(material.orm[..., 2].mean())
    # Old readers know Phong only: Ks 0 keeps them from adding a highlight.
    lines = ["newmtl dream3d", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 2", f"Pr {rough:.4g}", f"Pm {metal:.4g}"]
    if material.base_color is not None:
        lines.append(f"map_Kd textures/{TEXTURES['base_color']}")
    if material.normal is not None:
        lines.append(f"norm textures/{TEXTURES['normal']}")
    return "\n".join(lines) + "\n"
