// Vertices as cameras see them, and what the mesh kernels share. A projected vertex is (x w, y w, w): x right and y down
// in pixels, w metres along the viewing axis. Everything in a picture is linear in these three numbers, also behind the
// camera, so that triangles which reach there need no clipping (Olano & Greer 1997).
#pragma once
#include "schedule.h"

struct Point {
  real x, y, w;
};

struct PixelPlace {
  int64_t camera;
  int32_t row, column;
  D3D_FN real x() const { return (real)column + (real)0.5; }
  D3D_FN real y() const { return (real)row + (real)0.5; }
};

struct TriangleMesh {
  int64_t cameras, vertices, faces;
  int32_t width, height;
  const real* points;      // cameras, vertices, 3
  const int32_t* corners;  // faces, 3

  D3D_FN int64_t pixels() const { return (int64_t)width * height; }
  D3D_FN PixelPlace place(int64_t i) const {
    int64_t camera = i / pixels();
    uint32_t pixel = (uint32_t)(i - camera * pixels()), row = pixel / (uint32_t)width;
    return {camera, (int32_t)row, (int32_t)(pixel - row * (uint32_t)width)};
  }
  D3D_FN Point point(int64_t camera, int32_t vertex) const {
    const real* p = points + 3 * (camera * vertices + vertex);
    return {p[0], p[1], p[2]};
  }
  D3D_FN void triangle(int64_t camera, int64_t face, Point* p) const {
    for (int k = 0; k < 3; k++) p[k] = point(camera, corners[3 * face + k]);
  }
};

struct ProjectVertices {
  int64_t vertices;
  const real *matrices, *positions;  // a 3 x 4 matrix per camera
  real* points;

  D3D_FN void operator()(int64_t i) const {
    const real *m = matrices + 12 * (i / vertices), *p = positions + 3 * (i % vertices);
    for (int k = 0; k < 3; k++) points[3 * i + k] = m[4 * k] * p[0] + m[4 * k + 1] * p[1] + m[4 * k + 2] * p[2] + m[4 * k + 3];
  }
};

struct ProjectVerticesBackward {
  int64_t cameras, vertices;
  const real *matrices, *g_points;
  real* g_positions;

  D3D_FN void operator()(int64_t vertex) const {
    real sum[3] = {0, 0, 0};
    for (int64_t camera = 0; camera < cameras; camera++) {
      const real *m = matrices + 12 * camera, *g = g_points + 3 * (camera * vertices + vertex);
      for (int k = 0; k < 3; k++) sum[k] += m[k] * g[0] + m[4 + k] * g[1] + m[8 + k] * g[2];
    }
    for (int k = 0; k < 3; k++) g_positions[3 * vertex + k] = sum[k];
  }
};

D3D_API int d3d_mesh_project(void* stream, int64_t cameras, int64_t vertices, const real* matrices, const real* positions,
                             real* points) {
  return for_each(stream, cameras * vertices, 4096, ProjectVertices{vertices, matrices, positions, points});
}

D3D_API int d3d_mesh_project_backward(void* stream, int64_t cameras, int64_t vertices, const real* matrices,
                                      const real* g_points, real* g_positions) {
  return for_each(stream, vertices, 2048, ProjectVerticesBackward{cameras, vertices, matrices, g_points, g_positions});
}

D3D_FN void add_number(real* to, real x) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, x);
#else
  *to += x;
#endif
}

// scatter(...) calls item(i, target) for all items; an item may add anywhere into its group's part of `target`, which
// comes in zeroed. Group g has items g * items ... and numbers g * numbers ... of the target.
#if defined(__CUDACC__)

template <class Item>
struct GroupedItem {
  int64_t items, numbers;
  real* target;
  Item item;
  D3D_FN void operator()(int64_t i) const { item(i, target + i / items * numbers); }
};

// With atomic additions: the last bits may differ from run to run.
template <class Item>
inline int scatter(void* stream, int64_t groups, int64_t items, int64_t numbers, real* target, Item item) {
  return for_each(stream, groups * items, 0, GroupedItem<Item>{items, numbers, target, item});
}

#else
#include <vector>

const int64_t MOST_PARTS = 8, FEWEST_ITEMS_A_PART = 4096, MOST_PRIVATE_NUMBERS_AN_ITEM = 1;

// A group's items are cut into parts that add into copies of their own, and the copies are added up in order. How many
// parts there are depends on the sizes alone and not on the threads: the same bytes for any number of them. Copies that
// are large for the items would cost more than the items do.
template <class Item>
inline int scatter(void*, int64_t groups, int64_t items, int64_t numbers, real* target, Item item) {
  if (groups <= 0 || items <= 0 || numbers <= 0) return 0;
  int64_t parts = MOST_PARTS / groups, memory = MOST_PRIVATE_NUMBERS_AN_ITEM * items / numbers, work = items / FEWEST_ITEMS_A_PART;
  parts = parts < memory ? parts : memory;
  parts = parts < work ? parts : work;
  parts = parts < 1 ? 1 : parts;
  std::vector<std::vector<real>> copies(groups * parts);
  parallel(groups * parts, [&](int64_t task) {
    int64_t group = task / parts, part = task % parts;
    if (part) copies[task].assign(numbers, 0);
    real* to = part ? copies[task].data() : target + group * numbers;
    for (int64_t i = items * part / parts; i < items * (part + 1) / parts; i++) item(group * items + i, to);
  });
  if (parts == 1) return 0;
  for (int64_t group = 0; group < groups; group++)
    parallel_blocks(numbers, 8192, [&](int64_t first, int64_t number) {
      for (int64_t part = 1; part < parts; part++) {
        const real* from = copies[group * parts + part].data();
        for (int64_t k = first; k < first + number; k++) target[group * numbers + k] += from[k];
      }
    });
  return 0;
}

#endif

// call(Channels<N>) with N = channels where that is a common number, so that its loops unroll; else N = 0.
template <int NUMBER>
struct Channels {
  static const int number = NUMBER;
};

template <class Call>
inline int for_channels(int32_t channels, Call call) {
  switch (channels) {
    case 1: return call(Channels<1>{});
    case 2: return call(Channels<2>{});
    case 3: return call(Channels<3>{});
    case 4: return call(Channels<4>{});
    case 6: return call(Channels<6>{});
    default: return call(Channels<0>{});
  }
}
