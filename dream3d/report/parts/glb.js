// Reads the GLBs that dream3d writes: triangles, one material, PNG or JPEG inside.
"use strict";

const ARRAYS = { 5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const WIDTHS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };

function bytesOf(base64) {
  const text = atob(base64.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}

function readAccessor(json, buffer, start, index) {
  const accessor = json.accessors[index], view = json.bufferViews[accessor.bufferView];
  const Kind = ARRAYS[accessor.componentType], width = WIDTHS[accessor.type];
  const first = start + (view.byteOffset || 0) + (accessor.byteOffset || 0);
  const tight = Kind.BYTES_PER_ELEMENT * width, stride = view.byteStride || tight;
  if (stride === tight) return new Kind(buffer.slice(first, first + accessor.count * tight));
  const values = new Kind(accessor.count * width);
  for (let i = 0; i < accessor.count; i++) {
    const at = first + i * stride;
    values.set(new Kind(buffer.slice(at, at + tight)), i * width);
  }
  return values;
}

function flatNormals(positions, indices) {
  const normals = new Float32Array(positions.length);
  for (let f = 0; f < indices.length; f += 3) {
    const [a, b, c] = [0, 1, 2].map((k) => 3 * indices[f + k]);
    const u = [0, 1, 2].map((k) => positions[b + k] - positions[a + k]);
    const v = [0, 1, 2].map((k) => positions[c + k] - positions[a + k]);
    const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += n[k];
  }
  return normals;
}

async function readGlb(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0, true) !== 0x46546c67) throw new Error("not a GLB");
  const length = view.getUint32(12, true), start = 28 + length;
  const json = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, length)));
  const primitive = json.meshes[0].primitives[0], names = primitive.attributes;
  if ((primitive.mode ?? 4) !== 4) throw new Error("no triangles");
  const get = (name) => (name in names ? readAccessor(json, buffer, start, names[name]) : null);
  const positions = get("POSITION"), count = positions.length / 3;
  const indices = primitive.indices === undefined
    ? Uint32Array.from({ length: count }, (_, i) => i)
    : Uint32Array.from(readAccessor(json, buffer, start, primitive.indices));
  const material = (json.materials || [])[primitive.material] || {};
  const pbr = material.pbrMetallicRoughness || {};
  const picture = async (slot) => {
    if (!slot) return null;
    const image = json.images[json.textures[slot.index].source], at = json.bufferViews[image.bufferView];
    const data = new Uint8Array(buffer, start + (at.byteOffset || 0), at.byteLength);
    const blob = new Blob([data], { type: image.mimeType });
    return createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  };
  return {
    positions, indices,
    normals: get("NORMAL") || flatNormals(positions, indices),
    uvs: get("TEXCOORD_0"), tangents: get("TANGENT"), colors: get("COLOR_0"),
    colorWidth: "COLOR_0" in names ? WIDTHS[json.accessors[names.COLOR_0].type] : 3,
    base: await picture(pbr.baseColorTexture),
    orm: await picture(pbr.metallicRoughnessTexture || material.occlusionTexture),
    normalMap: await picture(material.normalTexture),
    factor: (pbr.baseColorFactor || [1, 1, 1, 1]).slice(0, 3),
    roughness: pbr.roughnessFactor ?? 1, metallic: pbr.metallicFactor ?? 1,
    unlit: Boolean(material.extensions && material.extensions.KHR_materials_unlit),
  };
}

// Every edge once, whatever seams it lies on.
function edgesOf(indices) {
  const seen = new Set(), lines = [];
  for (let f = 0; f < indices.length; f += 3) {
    for (let k = 0; k < 3; k++) {
      const a = indices[f + k], b = indices[f + ((k + 1) % 3)];
      const key = a < b ? a * 4294967296 + b : b * 4294967296 + a;
      if (!seen.has(key) && seen.add(key)) lines.push(a, b);
    }
  }
  return Uint32Array.from(lines);
}
