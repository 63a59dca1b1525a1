"""USDZ files: a scene as text (USDA) and its textures in one uncompressed archive. Needs no USD library.

As the glTF writer: the same mesh gives the same bytes.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dream3d import __version__
from dream3d.checks import InputError
from dream3d.gltf import JSON, TEXTURES, checked_json, shared, texture_files
from dream3d.runs import write_atomically
from dream3d.types import Material, Mesh

ALIGNED = 64
"""Bytes of which the place of every file in the archive is a multiple: readers map them into memory."""

PADDING = 0x1986
"""Name of the zip header field that fills up to it, as OpenUSD's own writer calls it."""

EPOCH = (1980, 1, 1, 0, 0, 0)

RAW = 'token inputs:sourceColorSpace = "raw"'


def write_usd(mesh: Mesh, path: Path, extras: Mapping[str, JSON], *, unlit: bool = False) -> None:
    """One mesh with a UsdPreviewSurface, and its textures; y-up, front +Z, metres.

    Positions are shared across UV seams: texture coordinates belong to corners of faces.

    Args:
        mesh: the surface; `material` images become PNG.
        path: file to write, .usdz.
        extras: JSON values for the layer's `customLayerData` (as one string).
        unlit: the base colour shines by itself and reflects nothing.

    Raises:
        InputError: the mesh is empty, or `extras` is not JSON.

    Source: OpenUSD, "USDZ file format specification" and "UsdPreviewSurface specification" 2.6.
    """
    if not len(mesh.faces):
        raise InputError("write_usd: expected at least one triangle, got none.")
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    name = f"_{name}" if name[0].isdigit() else name
    files = {} if mesh.uv is None or mesh.material is None else texture_files(mesh.material)
    scene = _scene(mesh, name, checked_json(extras), unlit).encode()
    named = {f"textures/{file}": data for file, data in files.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _archive({f"{name}.usda": scene, **named}))


def _archive(files: Mapping[str, bytes]) -> bytes:
    """A zip without compression in which every file's bytes begin at a multiple of `ALIGNED`; the scene comes first."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, date_time=EPOCH)
            fixed = out.tell() + 30 + len(name.encode()) + 4  # the local header, and that of the padding
            fill = -fixed % ALIGNED
            entry.extra = PADDING.to_bytes(2, "little") + fill.to_bytes(2, "little") + bytes(fill)
            archive.writestr(entry, data)
    return out.getvalue()


def _scene(mesh: Mesh, name: str, extras: Mapping[str, JSON], unlit: bool) -> str:
    points, first, corner = shared(mesh)
    body = [
        _array("point3f[] points", points),
        _array("float3[] extent", np.stack([points.min(0), points.max(0)])),
        _array("int[] faceVertexCounts", np.full(len(corner), 3)),
        _array("int[] faceVertexIndices", corner.reshape(-1)),
        'uniform token subdivisionScheme = "none"',
    ]
    if mesh.normals is not None:
        normals = mesh.normals.detach().cpu().float().numpy()[first]
        body += [_array("normal3f[] normals", normals) + ' (interpolation = "vertex")']
    if mesh.uv is not None:
        uv = mesh.uv.detach().cpu().double().numpy() * [1, -1] + [0, 1]
        body += [
            _array("texCoord2f[] primvars:st", uv) + ' (interpolation = "faceVarying")',
            _array("int[] primvars:st:indices", mesh.faces.detach().cpu().numpy().reshape(-1)),
        ]
    elif mesh.colors is not None:
        colors = mesh.colors.detach().cpu().float().numpy()[first]
        body += [_array("color3f[] primvars:displayColor", colors) + ' (interpolation = "vertex")']
    parts = [("def Mesh", "surface", body)]
    bound = ""
    if mesh.uv is not None:
        body += [f"rel material:binding = </{name}/material>"]
        bound = ' (prepend apiSchemas = ["MaterialBindingAPI"])'
        parts += [("def Material", "material", _material(mesh.material or Material(), f"/{name}/material", unlit))]
    told = f"string dream3d = {_quoted(json.dumps(extras))}; string creator = {_quoted(f'dream3d {__version__}')}"
    lines = [
        "#usda 1.0",
        f'(customLayerData = {{{told}}}; defaultPrim = "{name}"; metersPerUnit = 1; upAxis = "Y")',
        f'def Xform "{name}" (kind = "component")',
        "{",
    ]
    for kind, part, inside in parts:
        lines += [f'{kind} "{part}"{bound if part == "surface" else ""}', "{", *inside, "}"]
    return "\n".join([*lines, "}", ""])


def _material(material: Material, place: str, unlit: bool) -> list[str]:
    """A UsdPreviewSurface with a texture reader for each map."""
    maps = {field: name for field, name in TEXTURES.items() if getattr(material, field) is not None}
    if unlit:
        maps = {field: name for field, name in maps.items() if field == "base_color"}
    color = "emissiveColor" if unlit else "diffuseColor"
    inputs = [
        f"color3f inputs:{color}" + (_from(place, "base_color", "rgb") if "base_color" in maps else " = (1, 1, 1)")
    ]
    if unlit:
        inputs += ["color3f inputs:diffuseColor = (0, 0, 0)", "int inputs:useSpecularWorkflow = 1"]
        inputs += ["color3f inputs:specularColor = (0, 0, 0)"]
    elif "orm" in maps:
        factors = (
            ("occlusion", "r", 1.0),
            ("roughness", "g", material.roughness),
            ("metallic", "b", material.metallic),
        )
        # There is no factor beside a texture, so that one of 0 stands for it.
        inputs += [f"float inputs:{key}" + (_from(place, "orm", channel) if factor else " = 0")
                   for key, channel, factor in factors]  # fmt: skip
    else:
        inputs += [
            f"float inputs:roughness = {material.roughness:.7g}",
            f"float inputs:metallic = {material.metallic:.7g}",
        ]
    if "normal" in maps:
        inputs += ["normal3f inputs:normal" + _from(place, "normal", "rgb")]
    lines = [f"token outputs:surface.connect = <{place}/pbr.outputs:surface>"]
    lines += _shader("pbr", "UsdPreviewSurface", [*inputs, "token outputs:surface"])
    if maps:
        lines += _shader("st", "UsdPrimvarReader_float2", ['string inputs:varname = "st"', "float2 outputs:result"])
    for field, name in maps.items():
        coded = ['token inputs:sourceColorSpace = "sRGB"'] if field == "base_color" else [RAW]
        if field == "normal":
            coded += ["float4 inputs:scale = (2, 2, 2, 1)", "float4 inputs:bias = (-1, -1, -1, 0)"]
        reader = [f"asset inputs:file = @textures/{name}@", "float2 inputs:st" + _from(place, "st", "result"), *coded]
        reader += [f'token inputs:wrap{axis} = "clamp"' for axis in "ST"]
        outputs = [f"float outputs:{c}" for c in "rgb"] if field == "orm" else ["float3 outputs:rgb"]
        lines += _shader(field, "UsdUVTexture", [*reader, *outputs])
    return lines


def _shader(name: str, kind: str, lines: Iterable[str]) -> list[str]:
    return [f'def Shader "{name}"', "{", f'uniform token info:id = "{kind}"', *lines, "}"]


def _from(place: str, shader: str, output: str) -> str:
    return f".connect = <{place}/{shader}.outputs:{output}>"


def _array(what: str, values: NDArray) -> str:
    """An attribute: tuples for the rows of a matrix, in seven digits."""
    if values.ndim == 1:
        return f"{what} = [{', '.join(map(str, values.tolist()))}]"
    return f"{what} = [{', '.join('(' + ', '.join(f'{x:.7g}' for x in row) + ')' for row in values.tolist())}]"


def _quoted(text: str) -> str:
    """A USD string in double quotes; JSON has no line breaks of its own."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
