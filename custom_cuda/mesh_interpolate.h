// Values at pixels from values at corners, through an index buffer of their own (texture coordinates have other seams
// than the surface), and how fast texture coordinates change from pixel to pixel.
#pragma once
#include "mesh_rasterise.h"

struct Interpolation {
  int64_t pixels, rows;  // of a picture; of a table of attributes
  int32_t channels;
  bool per_camera;
  const real* attributes;
  const int32_t *corners, *face;
  const real* barycentrics;

  D3D_FN int64_t table(int64_t i) const { return per_camera ? i / pixels * rows * channels : 0; }
  D3D_FN int64_t row(int32_t seen, int k) const { return (int64_t)corners[3 * (int64_t)seen + k] * channels; }
};

template <int CHANNELS>
struct Interpolate {
  Interpolation in;
  real* values;

  D3D_FN void operator()(int64_t i) const {
    const int channels = CHANNELS ? CHANNELS : in.channels;
    real* out = values + i * channels;
    int32_t seen = in.face[i];
    if (seen < 0) {
      for (int c = 0; c < channels; c++) out[c] = 0;
      return;
    }
    const real *from = in.attributes + in.table(i), *b = in.barycentrics + 3 * i;
    const real *first = from + in.row(seen, 0), *second = from + in.row(seen, 1), *third = from + in.row(seen, 2);
    for (int c = 0; c < channels; c++) out[c] = b[0] * first[c] + b[1] * second[c] + b[2] * third[c];
  }
};

template <int CHANNELS>
struct InterpolateBackward {
  Interpolation in;
  const real* g_values;
  real* g_barycentrics;  // may be null, as may g_attributes

  D3D_FN void operator()(int64_t i, real* g_attributes) const {
    const int channels = CHANNELS ? CHANNELS : in.channels;
    int32_t seen = in.face[i];
    real sums[3] = {0, 0, 0};
    if (seen >= 0) {
      const real *g = g_values + i * channels, *b = in.barycentrics + 3 * i, *from = in.attributes + in.table(i);
      for (int k = 0; k < 3; k++) {
        int64_t row = in.row(seen, k);
        if (g_barycentrics)
          for (int c = 0; c < channels; c++) sums[k] += g[c] * from[row + c];
        if (g_attributes)
          for (int c = 0; c < channels; c++) add_number(g_attributes + row + c, b[k] * g[c]);
      }
    }
    if (g_barycentrics)
      for (int k = 0; k < 3; k++) g_barycentrics[3 * i + k] = sums[k];
  }

  D3D_FN void operator()(int64_t i) const { (*this)(i, nullptr); }
};

D3D_API int d3d_mesh_interpolate(void* stream, int64_t cameras, int64_t pixels, int64_t rows, int32_t channels,
                                 int32_t per_camera, const real* attributes, const int32_t* corners, const int32_t* face,
                                 const real* barycentrics, real* values) {
  Interpolation in{pixels, rows, channels, per_camera != 0, attributes, corners, face, barycentrics};
  return for_channels(channels, [&](auto fixed) {
    return for_each(stream, cameras * pixels, 4096, Interpolate<decltype(fixed)::number>{in, values});
  });
}

// Either result may be null; `g_attributes` comes in zeroed.
D3D_API int d3d_mesh_interpolate_backward(void* stream, int64_t cameras, int64_t pixels, int64_t rows, int32_t channels,
                                          int32_t per_camera, const real* attributes, const int32_t* corners,
                                          const int32_t* face, const real* barycentrics, const real* g_values,
                                          real* g_attributes, real* g_barycentrics) {
  Interpolation in{pixels, rows, channels, per_camera != 0, attributes, corners, face, barycentrics};
  int64_t groups = in.per_camera ? cameras : 1, all = cameras * pixels;
  return for_channels(channels, [&](auto fixed) {
    InterpolateBackward<decltype(fixed)::number> item{in, g_values, g_barycentrics};
    if (!g_attributes) return for_each(stream, all, 4096, item);
    return groups ? scatter(stream, groups, all / groups, rows * channels, g_attributes, item) : 0;
  });
}

// log2 of a pixel's footprint in texels: of the longer of the ways that one step to the right and one step down make in
// the texture. 0 where nothing is seen or the texture is magnified.
struct MipLevels {
  TriangleMesh mesh;
  const real* uv;
  const int32_t *uv_corners, *face;
  real across, down;  // texels
  real* levels;

  D3D_FN void operator()(int64_t i) const {
    levels[i] = 0;
    int32_t seen = face[i];
    if (seen < 0) return;
    PixelPlace at = mesh.place(i);
    Point p[3];
    mesh.triangle(at.camera, seen, p);
    real weight[3], u[3], v[3];
    weights_at(p, at.x(), at.y(), weight);
    real sum = weight[0] + weight[1] + weight[2], u_here = 0, v_here = 0;
    for (int k = 0; k < 3; k++) {
      const real* here = uv + 2 * (int64_t)uv_corners[3 * (int64_t)seen + k];
      u[k] = here[0] * across;
      v[k] = here[1] * down;
      u_here += weight[k] / sum * u[k];
      v_here += weight[k] / sum * v[k];
    }
    real u_right = 0, v_right = 0, u_below = 0, v_below = 0;
    for (int k = 0; k < 3; k++) {
      const Point &a = p[(k + 1) % 3], &b = p[(k + 2) % 3];
      real right = (b.w * a.y - a.w * b.y) / sum, below = (a.w * b.x - b.w * a.x) / sum;
      u_right += right * (u[k] - u_here);
      v_right += right * (v[k] - v_here);
      u_below += below * (u[k] - u_here);
      v_below += below * (v[k] - v_here);
    }
    real longest = larger(u_right * u_right + v_right * v_right, u_below * u_below + v_below * v_below);
    levels[i] = longest > 1 ? (real)0.5 * std::log2(longest) : 0;
  }
};

D3D_API int d3d_mesh_mip_levels(void* stream, int64_t cameras, int64_t vertices, int64_t faces, int32_t width, int32_t height,
                                const real* points, const int32_t* corners, const real* uv, const int32_t* uv_corners,
                                const int32_t* face, int32_t texture_width, int32_t texture_height, real* levels) {
  TriangleMesh mesh{cameras, vertices, faces, width, height, points, corners};
  MipLevels item{mesh, uv, uv_corners, face, (real)texture_width, (real)texture_height, levels};
  return for_each(stream, cameras * mesh.pixels(), 2048, item);
}
