// Silhouette antialiasing after nvdiffrast (Laine et al. 2020, arXiv:2011.03277, section 3.5): where two neighbouring
// pixels see different triangles and a silhouette passes between their centres, the one takes from the other's colour by
// the share of its area that lies beyond the edge. This is what carries gradients to positions across silhouettes.
//
// The edge is searched from the nearer pixel's triangle along the line to the other centre, walking across edges that are
// no silhouettes: triangles of a fine mesh are smaller than pixels, and hardly ever does the pixel's own triangle have
// the silhouette.
#pragma once
#include "mesh_points.h"

// A crossing: a pair of pixels (2 * pixel for the one to the right, + 1 for the one below), what lies between, and where:
// `position` 0 to 1 from the nearer pixel's centre to the other.
struct Silhouette {
  int32_t face, corner;  // the edge opposite to this corner
  bool second_is_nearer;
  D3D_FN int32_t code() const { return 1 + (face * 3 + corner) * 2 + (second_is_nearer ? 1 : 0); }
  D3D_FN static Silhouette of(int32_t code) { return {(code - 1) / 6, (code - 1) / 2 % 3, ((code - 1) & 1) != 0}; }
};

// A picture seen from the nearer pixel's centre: `along` towards the other centre, `aside` at right angles.
struct PairView {
  int64_t camera;
  int direction;
  bool reversed;
  real x, y;

  D3D_FN bool see(const TriangleMesh& mesh, int32_t vertex, real& along, real& aside) const {
    Point p = mesh.point(camera, vertex);
    if (!(p.w > 0)) return false;
    real right = p.x / p.w - x, down = p.y / p.w - y;
    along = direction ? down : right;
    along = reversed ? -along : along;
    aside = direction ? right : down;
    return true;
  }
};

D3D_FN PairView view_pair(const TriangleMesh& mesh, int64_t pair, bool reversed) {
  PixelPlace at = mesh.place(pair / 2);
  int direction = (int)(pair & 1);
  return {at.camera, direction, reversed, at.x() + (real)(reversed && !direction), at.y() + (real)(reversed && direction)};
}

D3D_FN real side(real ax, real ay, real bx, real by, real x, real y) { return (bx - ax) * (y - ay) - (by - ay) * (x - ax); }

struct FindSilhouettes {
  TriangleMesh mesh;
  const int32_t *neighbours, *face;  // neighbours: of a face across the edge opposite to a corner, -1 for none
  const real* depth;
  int32_t walk;
  int32_t* codes;  // 2 a pixel; 0 for none
  real* positions;

  D3D_FN int32_t third_corner(int32_t f, int32_t a, int32_t b) const {
    const int32_t* c = mesh.corners + 3 * (int64_t)f;
    return c[0] != a && c[0] != b ? c[0] : (c[1] != a && c[1] != b ? c[1] : c[2]);
  }

  // 0 unless a silhouette lies between the centres.
  D3D_FN int32_t search(const PairView& view, int32_t f, int32_t other, real& position) const {
    int32_t from = -1;
    real last = 0;
    for (int step = 0; step < walk; step++) {
      const int32_t* corner = mesh.corners + 3 * (int64_t)f;
      real u[3], v[3];
      for (int k = 0; k < 3; k++)
        if (!view.see(mesh, corner[k], u[k], v[k])) return 0;
      int exit = -1;
      real t = 0;
      for (int k = 0; k < 3; k++) {
        int a = (k + 1) % 3, b = (k + 2) % 3;
        if ((from >= 0 && neighbours[3 * (int64_t)f + k] == from) || (v[a] < 0) == (v[b] < 0)) continue;
        real crossing = (u[a] * v[b] - u[b] * v[a]) / (v[b] - v[a]);
        if (exit < 0 || crossing > t) {
          exit = k;
          t = crossing;
        }
      }
      if (exit < 0 || !(t >= last) || !(t <= 1)) return 0;
      int a = (exit + 1) % 3, b = (exit + 2) % 3;
      int32_t next = neighbours[3 * (int64_t)f + exit];
      bool silhouette = next < 0;
      if (!silhouette) {
        real x, y;
        if (!view.see(mesh, third_corner(next, corner[a], corner[b]), x, y)) return 0;
        real mine = side(u[a], v[a], u[b], v[b], u[exit], v[exit]), its = side(u[a], v[a], u[b], v[b], x, y);
        silhouette = (mine > 0) == (its > 0);
      }
      if (silhouette) {
        // An edge belongs to the pairs that it separates the better: else a slanting edge would count twice.
        real length = u[b] - u[a], width = v[b] - v[a];
        if (length * length > width * width) return 0;
        position = t;
        return Silhouette{f, exit, view.reversed}.code();
      }
      if (next == other) return 0;
      last = t;
      from = f;
      f = next;
    }
    return 0;
  }

  D3D_FN void operator()(int64_t i) const {
    const int64_t all = mesh.cameras * mesh.pixels();
    for (int direction = 0; direction < 2; direction++) {
      int64_t j = i + (direction ? mesh.width : 1), pair = 2 * i + direction;
      codes[pair] = 0;
      positions[pair] = 0;
      if (j >= all || face[i] == face[j]) continue;  // most pairs end here
      PixelPlace at = mesh.place(i);
      if (direction ? at.row + 1 == mesh.height : at.column + 1 == mesh.width) continue;
      bool reversed = face[i] < 0 || (face[j] >= 0 && depth[j] < depth[i]);
      PairView view = view_pair(mesh, pair, reversed);
      codes[pair] = search(view, reversed ? face[j] : face[i], reversed ? face[i] : face[j], positions[pair]);
    }
  }
};

// The crossings of all pictures, sorted by pair. `nearer` and `other` are pixels of a crossing; the one to which the edge
// is closer than to its neighbour's half takes.
struct Crossings {
  TriangleMesh mesh;
  int64_t number;
  int32_t channels;
  const int64_t* pairs;
  const int32_t* codes;
  const real* positions;

  D3D_FN void pixels_of(int64_t j, int64_t& nearer, int64_t& other, int64_t& taker) const {
    int64_t first = pairs[j] / 2, second = first + (pairs[j] & 1 ? mesh.width : 1);
    bool reversed = Silhouette::of(codes[j]).second_is_nearer;
    nearer = reversed ? second : first;
    other = reversed ? first : second;
    taker = positions[j] < (real)0.5 ? nearer : other;
  }
};

// taker += (1/2 - position) (other - nearer): positive shares where the edge cuts into the nearer pixel's half.
struct Blend {
  Crossings crossings;
  const real* colours;
  real* image;

  D3D_FN void operator()(int64_t j) const {
    int64_t nearer, other, taker, channels = crossings.channels;
    crossings.pixels_of(j, nearer, other, taker);
    real share = (real)0.5 - crossings.positions[j];
    for (int64_t c = 0; c < channels; c++)
      add_number(image + taker * channels + c, share * (colours[other * channels + c] - colours[nearer * channels + c]));
  }
};

struct BlendBackward {
  Crossings crossings;
  const real *colours, *g_image;
  real *g_colours, *g_points;  // either may be null

  D3D_FN void operator()(int64_t j) const {
    int64_t nearer, other, taker, channels = crossings.channels;
    crossings.pixels_of(j, nearer, other, taker);
    real share = (real)0.5 - crossings.positions[j], g_position = 0;
    for (int64_t c = 0; c < channels; c++) {
      real g = g_image[taker * channels + c];
      if (g_colours) {
        add_number(g_colours + other * channels + c, share * g);
        add_number(g_colours + nearer * channels + c, -share * g);
      }
      g_position += g * (colours[nearer * channels + c] - colours[other * channels + c]);
    }
    if (g_points && g_position != 0) to_points(j, g_position);
  }

  // position = (u_a v_b - u_b v_a) / (v_b - v_a), u along and v aside
  D3D_FN void to_points(int64_t j, real g_position) const {
    const TriangleMesh& mesh = crossings.mesh;
    Silhouette edge = Silhouette::of(crossings.codes[j]);
    PairView view = view_pair(mesh, crossings.pairs[j], edge.second_is_nearer);
    int32_t ends[2];
    real u[2], v[2], t = crossings.positions[j];
    for (int q = 0; q < 2; q++) {
      ends[q] = mesh.corners[3 * (int64_t)edge.face + (edge.corner + 1 + q) % 3];
      view.see(mesh, ends[q], u[q], v[q]);
    }
    real scale = g_position / (v[1] - v[0]);
    real g_along[2] = {scale * v[1], -scale * v[0]}, g_aside[2] = {scale * (t - u[1]), scale * (u[0] - t)};
    for (int q = 0; q < 2; q++) {
      Point p = mesh.point(view.camera, ends[q]);
      real along = view.reversed ? -g_along[q] : g_along[q];
      real g_x = (view.direction ? g_aside[q] : along) / p.w, g_y = (view.direction ? along : g_aside[q]) / p.w;
      real* to = g_points + 3 * (view.camera * mesh.vertices + ends[q]);
      add_number(to, g_x);
      add_number(to + 1, g_y);
      add_number(to + 2, -(g_x * p.x + g_y * p.y) / p.w);
    }
  }
};

// Crossings of one camera touch its own pixels and points only: a camera is a task, and walks its crossings in order.
// They are few (one a pixel of the outlines).
#if defined(__CUDACC__)

template <class Item>
inline int for_each_crossing(void* stream, const Crossings& crossings, Item item) {
  return for_each(stream, crossings.number, 0, item);
}

#else
#include <algorithm>

template <class Item>
inline int for_each_crossing(void*, const Crossings& crossings, Item item) {
  const int64_t *begin = crossings.pairs, *end = begin + crossings.number;
  parallel(crossings.mesh.cameras, [&](int64_t camera) {
    int64_t first = std::lower_bound(begin, end, 2 * camera * crossings.mesh.pixels()) - begin;
    int64_t last = std::lower_bound(begin, end, 2 * (camera + 1) * crossings.mesh.pixels()) - begin;
    for (int64_t j = first; j < last; j++) item(j);
  });
  return 0;
}

#endif

D3D_API int d3d_mesh_silhouettes(void* stream, int64_t cameras, int64_t vertices, int64_t faces, int32_t width,
                                 int32_t height, const real* points, const int32_t* corners, const int32_t* neighbours,
                                 const int32_t* face, const real* depth, int32_t walk, int32_t* codes, real* positions) {
  TriangleMesh mesh{cameras, vertices, faces, width, height, points, corners};
  return for_each(stream, cameras * mesh.pixels(), 2048, FindSilhouettes{mesh, neighbours, face, depth, walk, codes, positions});
}

// `image` comes in as a copy of `colours`.
D3D_API int d3d_mesh_antialias(void* stream, int64_t cameras, int64_t vertices, int64_t faces, int32_t width, int32_t height,
                               const real* points, const int32_t* corners, int64_t number, int32_t channels,
                               const int64_t* pairs, const int32_t* codes, const real* positions, const real* colours,
                               real* image) {
  TriangleMesh mesh{cameras, vertices, faces, width, height, points, corners};
  Crossings crossings{mesh, number, channels, pairs, codes, positions};
  return for_each_crossing(stream, crossings, Blend{crossings, colours, image});
}

// `g_colours` comes in as a copy of `g_image`, `g_points` zeroed; either may be null.
D3D_API int d3d_mesh_antialias_backward(void* stream, int64_t cameras, int64_t vertices, int64_t faces, int32_t width,
                                        int32_t height, const real* points, const int32_t* corners, int64_t number,
                                        int32_t channels, const int64_t* pairs, const int32_t* codes,
                                        const real* positions, const real* colours, const real* g_image,
                                        real* g_colours, real* g_points) {
  TriangleMesh mesh{cameras, vertices, faces, width, height, points, corners};
  Crossings crossings{mesh, number, channels, pairs, codes, positions};
  return for_each_crossing(stream, crossings, BlendBackward{crossings, colours, g_image, g_colours, g_points});
}
