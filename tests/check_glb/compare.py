"""Draw a GLB with our own kernels and materials as render_bpy.py does with Blender's, and compare the two pictures.

    python tests/check_glb/compare.py light ENV.hdr                       writes a studio to light with
    python tests/check_glb/compare.py FILE.glb ENV.hdr BLENDER.png OUT.png

Prints for each view the PSNR and the correlation over the pixels that both cover, and how far the outlines agree. OUT
shows Blender's views above ours.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image
from torch.nn import functional

from dream3d.cameras import look_at
from dream3d.kernels.mesh import interpolate, mip_levels, project_vertices, rasterise
from dream3d.kernels.texture import sample_texture
from dream3d.lights import Studio
from dream3d.lights.environment import prefiltered
from dream3d.lights.hdr import read_hdr, write_hdr
from dream3d.materials import PBR, Points
from dream3d.materials.normals import tangent_space
from dream3d.nn.color import display
from dream3d.texturing import tangents
from dream3d.types import Cameras, Mesh

VIEWS = {"front +Z": (0, 0.15, 1), "left +X": (1, 0.15, 0), "top +Y": (0, 1, 0.001), "back -Z": (0, 0.15, -1)}
FINE, BEHIND = 2, 0.5


def picture(image):
    return torch.from_numpy(np.asarray(image.convert("RGB")).astype(np.float32) / 255)


def read(path):
    """The mesh and its maps: colour, ORM, normals; nine channels."""
    (thing,) = trimesh.load_scene(path).geometry.values()
    material = thing.visual.material
    uv = np.stack([thing.visual.uv[:, 0], 1 - thing.visual.uv[:, 1]], axis=1)
    tensors = [torch.from_numpy(np.array(x, np.float32)) for x in (thing.vertices, thing.vertex_normals, uv)]
    mesh = Mesh(tensors[0], torch.from_numpy(np.array(thing.faces)), normals=tensors[1], uv=tensors[2])
    maps = (material.baseColorTexture, material.metallicRoughnessTexture, material.normalTexture)
    texels = torch.cat([picture(image) for image in maps], dim=-1)
    texels[..., 4] *= material.roughnessFactor
    texels[..., 5] *= material.metallicFactor
    return mesh, texels


def draw(mesh, texels, light, size):
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    middle, radius = (low + high) / 2, float((high - low).norm()) / 2
    ways = functional.normalize(torch.tensor(list(VIEWS.values())), dim=-1)
    position = middle + ways * radius * 1.1 / math.sin(math.radians(20))
    up = torch.tensor([0.0, 1.0, 0.0]).expand_as(position)
    c2w = look_at(position, middle.expand_as(position), up)
    cameras = Cameras(c2w, torch.full((len(ways),), math.radians(40)), FINE * size, FINE * size)
    projected = project_vertices(mesh.vertices, cameras)
    fragments = rasterise(projected, mesh.faces)
    hit = fragments.face >= 0
    uv = interpolate(mesh.uv, mesh.faces, fragments)
    levels = mip_levels(projected, mesh.faces, fragments, mesh.uv, mesh.faces, size=texels.shape[:2])
    seen = sample_texture(texels, uv, levels=levels, wrap="clamp")[hit]
    frame = torch.cat([mesh.vertices, mesh.normals, tangents(mesh)], dim=-1)
    point, normal, tangent, sign = interpolate(frame, mesh.faces, fragments)[hit].split([3, 3, 3, 1], dim=-1)
    normal, tangent = functional.normalize(normal, dim=-1), functional.normalize(tangent, dim=-1)
    normal = tangent_space(normal, torch.cat([tangent, sign.sign()], dim=-1), seen[:, 6:])
    eye = position[hit.nonzero()[:, 0]]
    points = Points(point, normal, functional.normalize(eye - point, dim=-1))
    values = {"albedo": seen[:, :3], "roughness": seen[:, 4:5].clamp_min(0.03), "metallic": seen[:, 5:6]}
    diffuse, specular = PBR(roughness=(0, 1), metallic=(0, 1)).linear(points, values, light)
    # The panorama is all the light there is, so that all of it is what glTF lets occlusion dim.
    image = torch.full((*hit.shape, 3), BEHIND)
    image[hit] = display(seen[:, 3:4] * (diffuse + specular), tone="clip")
    both = torch.cat([image, hit[..., None].float()], dim=-1).permute(0, 3, 1, 2)
    pooled = functional.avg_pool2d(both, FINE).permute(0, 2, 3, 1)
    return pooled[..., :3], pooled[..., 3]


@torch.no_grad()
def main():
    if sys.argv[1] == "light":
        write_hdr(Path(sys.argv[2]), Studio().radiance())
        return
    path, environment, theirs, out = map(Path, sys.argv[1:])
    sheet = picture(Image.open(theirs))
    size = sheet.shape[0]
    mesh, texels = read(path)
    ours, covered = draw(mesh, texels, prefiltered(read_hdr(environment)), size)
    for i, name in enumerate(VIEWS):
        blender = sheet[:, i * size : (i + 1) * size]
        inside = covered[i] > 0.99
        a, b = ours[i][inside], blender[inside]
        seen = (blender - BEHIND).abs().amax(-1) > 0.02
        alike = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        error = -10 * math.log10(float((a - b).square().mean()))
        agree = float((seen == (covered[i] > 0.5)).float().mean())
        mean = [[round(float(v), 3) for v in x.mean(0)] for x in (b, a)]
        print(f"{name}: {error:.1f} dB, correlation {alike:.4f}, outlines {agree:.4f}, mean colours {mean}")
    both = torch.cat([sheet, torch.cat(list(ours), dim=1)])
    Image.fromarray((both.clamp(0, 1) * 255).round().byte().numpy()).save(out)


if __name__ == "__main__":
    main()
