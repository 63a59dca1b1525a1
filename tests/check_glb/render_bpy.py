"""Render a GLB with Blender's Cycles from the front, the object's left, above and behind.

FILE.glb OUT.png [size [ENV.hdr]]: under white light and a lamp, or under a panorama alone.

Needs the package bpy, in a virtual environment of its own (see README.md). Prints what Blender found in the file, and
the mean colour of the object in each view.
"""

import json
import math
import sys
from pathlib import Path

import bpy
import numpy as np
from mathutils import Vector

# Where the camera stands, in glTF's axes (y-up, +Z front). Blender's importer turns (x, y, z) into (x, -z, y).
VIEWS = {"front +Z": (0, 0.15, 1), "left +X": (1, 0.15, 0), "top +Y": (0, 1, 0.001), "back -Z": (0, 0.15, -1)}


def to_blender(point):
    x, y, z = point
    return Vector((x, -z, y))


def describe(objects):
    for item in objects:
        material = item.data.materials[0] if item.data.materials else None
        links = []
        if material and material.node_tree:
            for link in material.node_tree.links:
                image = getattr(link.from_node, "image", None)
                what = f"{image.size[0]}x{image.size[1]} {image.colorspace_settings.name}" if image else ""
                links.append(f"{link.from_node.type} {what} -> {link.to_node.type}.{link.to_socket.name}")
        print(json.dumps({"object": item.name, "faces": len(item.data.polygons), "links": sorted(links)}, indent=1))
    print(json.dumps({"scene properties": {k: str(v) for k, v in bpy.context.scene.items()}}, indent=1))


def panorama(world, path):
    """Blender's panoramas have +X in the middle, +Y on the left; ours have +Z (Blender's -Y), +X on the left."""
    nodes, links = world.node_tree.nodes, world.node_tree.links
    picture, turn, where = (nodes.new(f"ShaderNode{kind}") for kind in ("TexEnvironment", "Mapping", "TexCoord"))
    picture.image = bpy.data.images.load(str(Path(path).resolve()))
    turn.inputs["Rotation"].default_value[2] = math.radians(90)
    links.new(where.outputs["Generated"], turn.inputs["Vector"])
    links.new(turn.outputs["Vector"], picture.inputs["Vector"])
    links.new(picture.outputs["Color"], nodes["Background"].inputs[0])


def stage(size, environment):
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = 16
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    world = bpy.data.worlds.new("world")
    world.node_tree.nodes["Background"].inputs[0].default_value = (1, 1, 1, 1)
    world.node_tree.nodes["Background"].inputs[1].default_value = 1.0 if environment else 0.8
    scene.world = world
    if environment:
        panorama(world, environment)
        scene.cycles.samples = 64
    else:
        lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "SUN"))
        lamp.data.energy = 1.0
        lamp.rotation_euler = (math.radians(50), 0, math.radians(30))
        scene.collection.objects.link(lamp)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.angle = math.radians(40)
    scene.collection.objects.link(camera)
    scene.camera = camera
    return scene, camera


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    size = int(sys.argv[3]) if len(sys.argv) > 3 else 256
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(source))
    objects = [item for item in bpy.context.scene.objects if item.type == "MESH"]
    describe(objects)
    corners = [item.matrix_world @ Vector(corner) for item in objects for corner in item.bound_box]
    low, high = (Vector(f(c[i] for c in corners) for i in range(3)) for f in (min, max))
    middle, radius = (low + high) / 2, (high - low).length / 2
    print(json.dumps({"blender bounds (z-up)": [[round(v, 4) for v in low], [round(v, 4) for v in high]]}))
    scene, camera = stage(size, sys.argv[4] if len(sys.argv) > 4 else None)
    tiles = []
    for name, direction in VIEWS.items():
        offset = to_blender(direction).normalized()
        camera.location = middle + offset * radius * 1.1 / math.sin(math.radians(20))
        camera.rotation_euler = (-offset).to_track_quat("-Z", "Y").to_euler()
        scene.render.filepath = str(target.with_suffix(".view.png").resolve())
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(scene.render.filepath, check_existing=False)
        pixels = np.array(image.pixels[:]).reshape(size, size, 4)
        inside = pixels[pixels[..., 3] > 0.99]
        print(f"{name}: mean colour {np.round(inside[:, :3].mean(0), 2).tolist()} over {len(inside)} pixels")
        tiles.append(pixels[..., :3] * pixels[..., 3:] + 0.5 * (1 - pixels[..., 3:]))
        bpy.data.images.remove(image)
    Path(scene.render.filepath).unlink()
    sheet = bpy.data.images.new("sheet", size * len(tiles), size)
    rgba = np.ones((size, size * len(tiles), 4), dtype=np.float32)
    rgba[..., :3] = np.concatenate(tiles, axis=1)
    sheet.pixels.foreach_set(rgba.ravel())
    sheet.filepath_raw, sheet.file_format = str(target.resolve()), "PNG"
    sheet.save()


if __name__ == "__main__":
    main()
