// Which triangle a pixel sees: for every pixel centre the nearest triangle that covers it, where in the triangle
// (perspective-correct barycentrics), and how far along the viewing axis.
//
// With p' = (x w - x_pixel w, y w - y_pixel w) the weight of corner k is the cross product of the other two p'. Swapping
// the two flips its sign and changes no bit, since nothing here is compiled to fused multiply-adds: a pixel centre lies
// on one side of an edge for one neighbour and on the other for the other, or on the edge for both, where the top-left
// rule decides. So there are no holes between triangles and no double hits. At equal depth the lower face wins.
#pragma once
#include "lanes.h"
#include "mesh_points.h"

// Barycentric weights before they are divided by their sum.
D3D_FN void weights_at(const Point* p, real x, real y, real* weight) {
  real px[3], py[3];
  for (int k = 0; k < 3; k++) {
    px[k] = p[k].x - x * p[k].w;
    py[k] = p[k].y - y * p[k].w;
  }
  weight[0] = px[1] * py[2] - px[2] * py[1];
  weight[1] = px[2] * py[0] - px[0] * py[2];
  weight[2] = px[0] * py[1] - px[1] * py[0];
}

// Which sign of zero a weight of exactly 0 stands for: 1 on a left or top edge of a triangle of positive weights, -1 on
// one of a triangle of negative weights, 0 on an edge without length.
D3D_FN int lean(Point a, Point b) {
  real x = b.w * a.y - a.w * b.y, y = a.w * b.x - b.w * a.x;
  if (x != 0) return x > 0 ? 1 : -1;
  return y > 0 ? 1 : (y < 0 ? -1 : 0);
}

D3D_FN bool covers(const real* weight, const int* leans) {
  bool positive = true, negative = true;
  for (int k = 0; k < 3; k++) {
    positive = positive && (weight[k] > 0 || (weight[k] == 0 && leans[k] > 0));
    negative = negative && (weight[k] < 0 || (weight[k] == 0 && leans[k] < 0));
  }
  return positive || negative;
}

D3D_FN real depth_at(const Point* p, const real* weight) {
  return (weight[0] * p[0].w + weight[1] * p[1].w + weight[2] * p[2].w) / (weight[0] + weight[1] + weight[2]);
}

D3D_FN int16_t pixel_bound(real x, int32_t most) { return (int16_t)(x > 0 ? (x < (real)most ? x : (real)most) : 0); }

// Pixels in x0 <= x < x1, y0 <= y < y1 may see the part of a triangle beyond the near plane; no others do.
struct FaceBoxes {
  TriangleMesh mesh;
  real nearest;
  int16_t* boxes;

  D3D_FN void operator()(int64_t i) const {
    const real nothing = (real)1e30, half = (real)0.5;
    Point p[3];
    mesh.triangle(i / mesh.faces, i % mesh.faces, p);
    real x0 = nothing, y0 = nothing, x1 = -nothing, y1 = -nothing;
    for (int k = 0; k < 6; k++) {
      Point a = p[k % 3], b = p[(k + 1) % 3];
      bool crosses = (a.w >= nearest) != (b.w >= nearest);
      if (k < 3 ? !(a.w >= nearest) : !crosses) continue;
      real t = k < 3 ? 0 : (nearest - a.w) / (b.w - a.w), w = k < 3 ? a.w : nearest;
      real x = (a.x + t * (b.x - a.x)) / w, y = (a.y + t * (b.y - a.y)) / w;
      x0 = smaller(x0, x);
      x1 = larger(x1, x);
      y0 = smaller(y0, y);
      y1 = larger(y1, y);
    }
    const real margin = (real)0.0625;  // many times the rounding errors of coordinates up to 32767
    int16_t* box = boxes + 4 * i;
    box[0] = pixel_bound(std::ceil(x0 - half - margin), mesh.width);
    box[1] = pixel_bound(std::ceil(y0 - half - margin), mesh.height);
    box[2] = pixel_bound(std::floor(x1 - half + margin) + 1, mesh.width);
    box[3] = pixel_bound(std::floor(y1 - half + margin) + 1, mesh.height);
  }
};

struct FragmentsOut {
  int32_t* face;
  real *barycentrics, *depth;

  D3D_FN void write(const TriangleMesh& mesh, const PixelPlace& at, int32_t seen) const {
    int64_t i = at.camera * mesh.pixels() + (int64_t)at.row * mesh.width + at.column;
    face[i] = seen;
    real* b = barycentrics + 3 * i;
    b[0] = b[1] = b[2] = depth[i] = 0;
    if (seen < 0) return;
    Point p[3];
    mesh.triangle(at.camera, seen, p);
    real weight[3];
    weights_at(p, at.x(), at.y(), weight);
    real sum = weight[0] + weight[1] + weight[2];
    for (int k = 0; k < 3; k++) b[k] = weight[k] / sum;
    depth[i] = depth_at(p, weight);
  }
};

#if defined(__CUDACC__)

const int LANES_A_FACE = 32;

__device__ __forceinline__ unsigned long long depth_and_face(real depth, int64_t face) {
  return ((unsigned long long)__float_as_uint((float)depth) << 32) | (unsigned long long)face;
}

// A warp takes a face and its lanes the pixels of the box.
__global__ void draw_faces_kernel(TriangleMesh mesh, real nearest, real farthest, const int16_t* boxes,
                                  unsigned long long* keys) {
  int64_t warps = (int64_t)gridDim.x * blockDim.x / LANES_A_FACE, all = mesh.cameras * mesh.faces;
  int64_t first = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / LANES_A_FACE;
  for (int64_t i = first; i < all; i += warps) {
    const int16_t* box = boxes + 4 * i;
    int columns = box[2] - box[0], rows = box[3] - box[1];
    if (columns <= 0 || rows <= 0) continue;
    int64_t camera = i / mesh.faces, face = i % mesh.faces;
    Point p[3];
    mesh.triangle(camera, face, p);
    int leans[3] = {lean(p[1], p[2]), lean(p[2], p[0]), lean(p[0], p[1])};
    for (int at = threadIdx.x % LANES_A_FACE; at < columns * rows; at += LANES_A_FACE) {
      int x = box[0] + at % columns, y = box[1] + at / columns;
      real weight[3];
      weights_at(p, (real)x + (real)0.5, (real)y + (real)0.5, weight);
      if (!covers(weight, leans)) continue;
      real depth = depth_at(p, weight);
      if (!(depth >= nearest && depth < farthest)) continue;
      atomicMin(keys + camera * mesh.pixels() + (int64_t)y * mesh.width + x, depth_and_face(depth, face));
    }
  }
}

struct WriteFragments {
  TriangleMesh mesh;
  const unsigned long long* keys;
  FragmentsOut out;
  D3D_FN void operator()(int64_t i) const { out.write(mesh, mesh.place(i), keys[i] == ~0ull ? -1 : (int32_t)(uint32_t)keys[i]); }
};

inline int draw(void* stream, const TriangleMesh& mesh, real nearest, real farthest, const int16_t* boxes,
                uint64_t* workspace, const FragmentsOut& out) {
  unsigned long long* keys = (unsigned long long*)workspace;
  int64_t pixels = mesh.cameras * mesh.pixels(), all = mesh.cameras * mesh.faces;
  cudaError_t error = cudaMemsetAsync(keys, 0xff, pixels * sizeof *keys, (cudaStream_t)stream);
  if (error) return (int)error;
  unsigned blocks = blocks_for(all * LANES_A_FACE);
  if (all) draw_faces_kernel<<<blocks, THREADS_A_BLOCK, 0, (cudaStream_t)stream>>>(mesh, nearest, farthest, boxes, keys);
  int failed = (int)cudaGetLastError();
  return failed ? failed : for_each(stream, pixels, 0, WriteFragments{mesh, keys, out});
}

#else

const int BAND = 32;  // rows that a task owns: their depths stay in the cache

struct Band {
  int first, end, stride;
  std::vector<real> depth;
  std::vector<RealBits> face;
};

D3D_FN LaneBits covered_lanes(const Lanes* weight, const int* leans) {
  Lanes least = weight[0] < weight[1] ? weight[0] : weight[1], most = weight[0] > weight[1] ? weight[0] : weight[1];
  least = least < weight[2] ? least : weight[2];
  most = most > weight[2] ? most : weight[2];
  LaneBits covered = (least >= 0) | (most <= 0);
  if (!any(covered) || !any(covered & ((least == 0) | (most == 0)))) return covered;
  for (int lane = 0; lane < GROUP; lane++) {
    real w[3] = {weight[0][lane], weight[1][lane], weight[2][lane]};
    covered[lane] = covers(w, leans) ? -1 : 0;
  }
  return covered;
}

static void draw_face(const TriangleMesh& mesh, int64_t camera, int32_t face, const int16_t* box, real nearest, Band& band) {
  Point p[3];
  mesh.triangle(camera, face, p);
  const int leans[3] = {lean(p[1], p[2]), lean(p[2], p[0]), lean(p[0], p[1])};
  Lanes middle;
  for (int lane = 0; lane < GROUP; lane++) middle[lane] = (real)lane + (real)0.5;
  int first = box[1] > band.first ? box[1] : band.first, end = box[3] < band.end ? box[3] : band.end;
  for (int row = first; row < end; row++) {
    real y = (real)row + (real)0.5, py[3];
    for (int k = 0; k < 3; k++) py[k] = p[k].y - y * p[k].w;
    size_t line = (size_t)(row - band.first) * band.stride;
    for (int column = box[0]; column < box[2]; column += GROUP) {
      Lanes x = middle + (real)column, px[3];
      for (int k = 0; k < 3; k++) px[k] = p[k].x - x * p[k].w;
      Lanes weight[3] = {px[1] * py[2] - px[2] * py[1], px[2] * py[0] - px[0] * py[2], px[0] * py[1] - px[1] * py[0]};
      LaneBits seen = covered_lanes(weight, leans);
      if (!any(seen)) continue;
      Lanes depth = (weight[0] * p[0].w + weight[1] * p[1].w + weight[2] * p[2].w) / (weight[0] + weight[1] + weight[2]);
      Lanes best;
      LaneBits who;
      memcpy(&best, &band.depth[line + column], sizeof best);
      memcpy(&who, &band.face[line + column], sizeof who);
      seen &= (depth >= nearest) & (depth < best);
      best = seen ? depth : best;
      who = seen ? LaneBits{} + (RealBits)face : who;
      memcpy(&band.depth[line + column], &best, sizeof best);
      memcpy(&band.face[line + column], &who, sizeof who);
    }
  }
}

// The faces of every band of one camera, in order.
struct BandLists {
  std::vector<int32_t> first, faces;

  void fill(const int16_t* boxes, int64_t number, int bands) {
    first.assign(bands + 1, 0);
    auto for_bands = [&](auto visit) {
      for (int64_t f = 0; f < number; f++) {
        const int16_t* box = boxes + 4 * f;
        if (box[0] < box[2] && box[1] < box[3])
          for (int band = box[1] / BAND; band <= (box[3] - 1) / BAND; band++) visit(f, band);
      }
    };
    for_bands([&](int64_t, int band) { first[band + 1]++; });
    for (int band = 0; band < bands; band++) first[band + 1] += first[band];
    faces.resize(first[bands]);
    std::vector<int32_t> place(first.begin(), first.end() - 1);
    for_bands([&](int64_t f, int band) { faces[place[band]++] = (int32_t)f; });
  }
};

inline int draw(void*, const TriangleMesh& mesh, real nearest, real farthest, const int16_t* boxes, uint64_t*,
                const FragmentsOut& out) {
  const int bands = (mesh.height + BAND - 1) / BAND;
  std::vector<BandLists> lists(mesh.cameras);
  parallel(mesh.cameras, [&](int64_t camera) { lists[camera].fill(boxes + 4 * camera * mesh.faces, mesh.faces, bands); });
  parallel(mesh.cameras * bands, [&](int64_t task) {
    int64_t camera = task / bands;
    int number = (int)(task % bands);
    Band band;
    band.first = number * BAND;
    band.end = band.first + BAND < mesh.height ? band.first + BAND : mesh.height;
    band.stride = mesh.width + GROUP;  // the last group of a row may reach beyond it
    band.depth.assign((size_t)BAND * band.stride, farthest);
    band.face.assign((size_t)BAND * band.stride, -1);
    const BandLists& list = lists[camera];
    for (int32_t j = list.first[number]; j < list.first[number + 1]; j++) {
      int32_t face = list.faces[j];
      draw_face(mesh, camera, face, boxes + 4 * (camera * mesh.faces + face), nearest, band);
    }
    for (int row = band.first; row < band.end; row++)
      for (int column = 0; column < mesh.width; column++) {
        int32_t face = (int32_t)band.face[(size_t)(row - band.first) * band.stride + column];
        out.write(mesh, {camera, row, column}, face);
      }
  });
  return 0;
}

#endif

// `boxes` has room for 4 numbers per camera and face; `workspace`, on a GPU only, for one per pixel.
D3D_API int d3d_mesh_rasterise(void* stream, int64_t cameras, int64_t vertices, int64_t faces, int32_t width, int32_t height,
                               double nearest, double farthest, const real* points, const int32_t* corners, int16_t* boxes,
                               uint64_t* workspace, int32_t* face, real* barycentrics, real* depth) {
  TriangleMesh mesh{cameras, vertices, faces, width, height, points, corners};
  int failed = for_each(stream, cameras * faces, 2048, FaceBoxes{mesh, (real)nearest, boxes});
  if (failed) return failed;
  return draw(stream, mesh, (real)nearest, (real)farthest, boxes, workspace, FragmentsOut{face, barycentrics, depth});
}

// With b = weight / sum, d loss / d weight_k = (g_k - sum_j g_j b_j) / sum; a weight is bilinear in the other two corners.
struct RasteriseBackward {
  TriangleMesh mesh;
  const int32_t* face;
  const real *barycentrics, *g_barycentrics, *g_depth;  // either gradient may be null

  D3D_FN void operator()(int64_t i, real* g_points) const {
    int32_t seen = face[i];
    if (seen < 0) return;
    PixelPlace at = mesh.place(i);
    real x = at.x(), y = at.y();
    Point p[3];
    mesh.triangle(at.camera, seen, p);
    real weight[3], g[3], px[3], py[3], mean = 0, far = g_depth ? g_depth[i] : 0;
    weights_at(p, x, y, weight);
    real scale = 1 / (weight[0] + weight[1] + weight[2]);
    const real* b = barycentrics + 3 * i;
    for (int k = 0; k < 3; k++) {
      g[k] = (g_barycentrics ? g_barycentrics[3 * i + k] : 0) + far * p[k].w;
      mean += g[k] * b[k];
      px[k] = p[k].x - x * p[k].w;
      py[k] = p[k].y - y * p[k].w;
    }
    for (int k = 0; k < 3; k++) g[k] = (g[k] - mean) * scale;
    for (int k = 0; k < 3; k++) {
      int n = (k + 1) % 3, m = (k + 2) % 3;
      real g_x = g[m] * py[n] - g[n] * py[m], g_y = g[n] * px[m] - g[m] * px[n];
      real* to = g_points + 3 * (int64_t)mesh.corners[3 * (int64_t)seen + k];
      add_number(to, g_x);
      add_number(to + 1, g_y);
      add_number(to + 2, far * b[k] - x * g_x - y * g_y);
    }
  }
};

// `g_points` comes in zeroed.
D3D_API int d3d_mesh_rasterise_backward(void* stream, int64_t cameras, int64_t vertices, int64_t faces, int32_t width,
                                        int32_t height, const real* points, const int32_t* corners, const int32_t* face,
                                        const real* barycentrics, const real* g_barycentrics, const real* g_depth,
                                        real* g_points) {
  TriangleMesh mesh{cameras, vertices, faces, width, height, points, corners};
  return scatter(stream, cameras, mesh.pixels(), 3 * vertices, g_points,
                 RasteriseBackward{mesh, face, barycentrics, g_barycentrics, g_depth});
}
