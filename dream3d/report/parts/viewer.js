// One WebGL2 context draws all assets of the page; each picture is copied to a canvas of its own.
"use strict";

const MODES = ["lit", "unlit", "normals", "roughness", "metallic", "occlusion", "UV"];
const HOME = { azimuth: 0.5, elevation: 15 * Math.PI / 180, zoom: 1.25 };
const FOV = 40 * Math.PI / 180;
// Directions from which light comes, and how much: key, fill, rim.
const LIGHTS = {
  studio: [[0.5, 0.8, 0.7, 2.2], [-0.8, 0.3, 0.4, 0.7], [0.1, 0.5, -0.9, 0.9]],
  side: [[1, 0.15, 0.1, 2.8], [-0.6, 0.1, 0.5, 0.15], [0, 1, 0, 0.1]],
  behind: [[0.2, 0.6, -1, 3], [0, 0.3, 1, 0.25], [-1, 0.2, -0.3, 0.4]],
};

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec2 uv; in vec4 tangent; in vec3 color;
uniform mat4 toScreen; uniform vec3 centre; uniform float scale;
out vec3 world; out vec3 n; out vec2 st; out vec4 tan4; out vec3 tint;
void main() {
  world = (position - centre) * scale;
  n = normal; st = uv; tan4 = tangent; tint = color;
  gl_Position = toScreen * vec4(world, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec3 world; in vec3 n; in vec2 st; in vec4 tan4; in vec3 tint;
uniform sampler2D baseMap; uniform sampler2D ormMap; uniform sampler2D normalMap;
uniform vec3 factor; uniform float roughness; uniform float metallic; uniform int mode; uniform bool bumpy;
uniform vec3 eye; uniform vec4 lights[3]; uniform bool wire;
out vec4 shown;
vec3 toLinear(vec3 c) { return mix(c / 12.92, pow((c + 0.055) / 1.055, vec3(2.4)), step(0.04045, c)); }
vec3 toSRGB(vec3 c) {
  c = clamp(c, 0.0, 1.0);
  return mix(12.92 * c, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c));
}
// Cook-Torrance with GGX and Schlick's Fresnel, as glTF 2.0 describes it (appendix B).
vec3 light(vec3 N, vec3 V, vec3 L, vec3 base, float rough, float metal) {
  vec3 H = normalize(V + L);
  float nl = max(dot(N, L), 0.0), nv = max(dot(N, V), 1e-3), nh = max(dot(N, H), 0.0), vh = max(dot(V, H), 0.0);
  float a2 = max(pow(rough, 4.0), 1e-4), d = nh * nh * (a2 - 1.0) + 1.0;
  float D = a2 / (3.14159265 * d * d);
  float G = 0.5 / (nl * sqrt(a2 + (1.0 - a2) * nv * nv) + nv * sqrt(a2 + (1.0 - a2) * nl * nl) + 1e-5);
  vec3 F0 = mix(vec3(0.04), base, metal), F = F0 + (1.0 - F0) * pow(1.0 - vh, 5.0);
  vec3 diffuse = (1.0 - F) * (1.0 - metal) * base / 3.14159265;
  return (diffuse + D * G * F) * nl;
}
void main() {
  if (wire) { shown = vec4(0.05, 0.45, 0.95, 1.0); return; }
  vec3 N = normalize(n);
  if (bumpy) {
    vec3 T = normalize(tan4.xyz - N * dot(N, tan4.xyz)), B = cross(N, T) * tan4.w;
    vec3 bump = texture(normalMap, st).xyz * 2.0 - 1.0;
    N = normalize(T * bump.x + B * bump.y + N * bump.z);
  }
  vec3 base = toLinear(texture(baseMap, st).rgb) * factor * tint;
  vec3 orm = texture(ormMap, st).rgb;
  float rough = orm.g * roughness, metal = orm.b * metallic;
  vec3 V = normalize(eye - world);
  if (mode == 1) shown = vec4(toSRGB(base), 1.0);
  else if (mode == 2) shown = vec4(N * 0.5 + 0.5, 1.0);
  else if (mode == 3) shown = vec4(vec3(rough), 1.0);
  else if (mode == 4) shown = vec4(vec3(metal), 1.0);
  else if (mode == 5) shown = vec4(vec3(orm.r), 1.0);
  else if (mode == 6) {
    float check = mod(floor(st.x * 32.0) + floor(st.y * 32.0), 2.0);
    shown = vec4(mix(vec3(st, 0.5), vec3(st, 0.5) * 0.45, check), 1.0);
  } else {
    vec3 sum = vec3(0.0);
    for (int i = 0; i < 3; i++) sum += lights[i].w * light(N, V, normalize(lights[i].xyz), base, rough, metal);
    float sky = 0.5 + 0.5 * N.y;
    sum += orm.r * mix(base, base * 0.6 + 0.1, metal) * mix(0.22, 0.42, sky);
    shown = vec4(toSRGB(sum), 1.0);
  }
}`;

function perspective(aspect, near, far) {
  const f = 1 / Math.tan(FOV / 2), d = near - far;
  return [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / d, -1, 0, 0, 2 * far * near / d, 0];
}

function eyeOf(camera) {
  const far = camera.zoom / Math.tan(FOV / 2), level = Math.cos(camera.elevation);
  return [far * level * Math.sin(camera.azimuth), far * Math.sin(camera.elevation), far * level * Math.cos(camera.azimuth)];
}

function lookingAtOrigin(eye) {
  const unit = (v) => { const l = Math.hypot(...v) || 1; return v.map((x) => x / l); };
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const z = unit(eye), x = unit(cross([0, 1, 0], z)), y = cross(z, x);
  return [x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0, -dot(x, eye), -dot(y, eye), -dot(z, eye), 1];
}

function product(a, b) {
  const out = new Float32Array(16);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) {
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += a[4 * k + r] * b[4 * c + k];
    out[4 * c + r] = sum;
  }
  return out;
}

class Painter {
  constructor() {
    this.canvas = document.createElement("canvas");
    const gl = this.gl = this.canvas.getContext("webgl2", { antialias: true, alpha: true, preserveDrawingBuffer: true });
    if (!gl) throw new Error("this browser has no WebGL 2");
    const program = this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    this.white = this.texture(null);
    this.at = (name) => gl.getUniformLocation(program, name);
    ["baseMap", "ormMap", "normalMap"].forEach((name, i) => gl.uniform1i(this.at(name), i));
  }

  texture(image) {
    const gl = this.gl, made = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, made);
    if (image) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([255, 255, 255, 255]));
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return made;
  }

  upload(mesh) {
    const gl = this.gl, vao = gl.createVertexArray();
    gl.bindVertexArray(vao);
    const attribute = (name, values, width, otherwise) => {
      const place = gl.getAttribLocation(this.program, name);
      if (place < 0) return;
      if (!values) { gl.disableVertexAttribArray(place); return; }
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(place);
      const bytes = values instanceof Uint8Array;
      gl.vertexAttribPointer(place, width, bytes ? gl.UNSIGNED_BYTE : gl.FLOAT, bytes, 0, 0);
    };
    attribute("position", mesh.positions, 3);
    attribute("normal", mesh.normals, 3);
    attribute("uv", mesh.uvs, 2);
    attribute("tangent", mesh.tangents, 4);
    attribute("color", mesh.colors, mesh.colorWidth);
    const buffer = (indices) => {
      const made = gl.createBuffer();
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, made);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
      return made;
    };
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity], p = mesh.positions;
    for (let i = 0; i < p.length; i++) { low[i % 3] = Math.min(low[i % 3], p[i]); high[i % 3] = Math.max(high[i % 3], p[i]); }
    const centre = low.map((x, k) => (x + high[k]) / 2);
    let radius = 1e-9;
    for (let i = 0; i < p.length; i += 3) {
      radius = Math.max(radius, Math.hypot(p[i] - centre[0], p[i + 1] - centre[1], p[i + 2] - centre[2]));
    }
    const lines = edgesOf(mesh.indices);
    return {
      mesh, vao, centre, scale: 1 / radius, faces: buffer(mesh.indices), edges: buffer(lines), lines: lines.length,
      maps: [mesh.base, mesh.orm, mesh.normalMap].map((image) => (image ? this.texture(image) : this.white)),
    };
  }

  draw(asset, camera, look, canvas) {
    const gl = this.gl, { width, height } = canvas, mesh = asset.mesh, at = this.at;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const eye = eyeOf(camera);
    gl.uniformMatrix4fv(at("toScreen"), false, product(perspective(width / height, 0.05, 50), lookingAtOrigin(eye)));
    gl.uniform3fv(at("eye"), eye);
    gl.uniform3fv(at("centre"), asset.centre);
    gl.uniform1f(at("scale"), asset.scale);
    gl.uniform3fv(at("factor"), mesh.factor);
    gl.uniform1f(at("roughness"), mesh.roughness);
    gl.uniform1f(at("metallic"), mesh.metallic);
    gl.uniform1i(at("mode"), mesh.unlit && look.mode === "lit" ? 1 : MODES.indexOf(look.mode));
    gl.uniform1i(at("bumpy"), mesh.tangents && mesh.normalMap ? 1 : 0);
    gl.uniform4fv(at("lights"), LIGHTS[look.light].flat());
    asset.maps.forEach((map, i) => { gl.activeTexture(gl.TEXTURE0 + i); gl.bindTexture(gl.TEXTURE_2D, map); });
    gl.bindVertexArray(asset.vao);
    // What a mesh lacks has the same value at all its vertices; these values do not belong to the vertex array.
    for (const [name, value] of [["tangent", [1, 0, 0, 1]], ["color", [1, 1, 1, 1]], ["uv", [0, 0, 0, 1]]]) {
      const place = gl.getAttribLocation(this.program, name);
      if (place >= 0) gl.vertexAttrib4fv(place, value);
    }
    gl.enable(gl.POLYGON_OFFSET_FILL);
    gl.polygonOffset(1, 1);
    gl.uniform1i(at("wire"), 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, asset.faces);
    gl.drawElements(gl.TRIANGLES, mesh.indices.length, gl.UNSIGNED_INT, 0);
    if (look.wire) {
      gl.uniform1i(at("wire"), 1);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, asset.edges);
      gl.drawElements(gl.LINES, asset.lines, gl.UNSIGNED_INT, 0);
    }
    const paper = canvas.getContext("2d");
    paper.clearRect(0, 0, width, height);
    paper.drawImage(this.canvas, 0, 0);
  }
}

// All views of a page share one camera and one way of looking.
class Stage {
  constructor() {
    this.camera = { ...HOME };
    this.look = { mode: "lit", light: "studio", wire: false };
    this.spinning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.views = [];
    this.frames = 0;
    this.waiting = false;
  }

  async add(canvas, base64) {
    this.painter = this.painter || new Painter();
    this.views.push({ canvas, asset: this.painter.upload(await readGlb(bytesOf(base64))) });
    this.steer(canvas);
    this.ask();
  }

  ask() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame((now) => this.paint(now));
  }

  paint(now) {
    this.waiting = false;
    if (this.spinning) {
      this.camera.azimuth += Math.min(now - (this.before || now), 100) * 0.0005;
      this.before = now;
    } else this.before = 0;
    const dense = Math.min(devicePixelRatio || 1, 2);
    for (const { canvas, asset } of this.views) {
      const width = Math.round(canvas.clientWidth * dense), height = Math.round(canvas.clientHeight * dense);
      if (!width || !height) continue;
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      this.painter.draw(asset, this.camera, this.look, canvas);
    }
    this.frames++;
    if (this.spinning && !document.hidden) this.ask();
  }

  turn(by, up) {
    this.camera.azimuth += by;
    this.camera.elevation = Math.max(-1.55, Math.min(1.55, this.camera.elevation + up));
    this.ask();
  }

  rest() {
    this.spinning = false;
    document.querySelectorAll("[data-spin]").forEach((box) => { box.checked = false; });
  }

  steer(canvas) {
    canvas.addEventListener("pointerdown", (e) => { this.rest(); canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointermove", (e) => {
      if (e.buttons) this.turn(-e.movementX * 0.01, e.movementY * 0.01);
    });
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      this.camera.zoom = Math.max(0.3, Math.min(6, this.camera.zoom * Math.exp(e.deltaY * 0.001)));
      this.ask();
    }, { passive: false });
    canvas.addEventListener("dblclick", () => { Object.assign(this.camera, HOME); this.ask(); });
    canvas.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[e.key];
      if (step) { e.preventDefault(); this.rest(); this.turn(...step); }
    });
  }
}
