// Texture lookups: bilinear within a level, linear between two levels of a pyramid; flat textures that repeat or clamp, and
// cube maps that filter across the edges of their sides. Texel centres lie at (i + 1/2) / size, row 0 is v = 0.
#pragma once
#include "mesh_points.h"

const int MOST_MIPS = 16;
enum Wrap : int32_t { WRAP_REPEAT = 0, WRAP_CLAMP = 1, WRAP_CUBE = 2 };

// The levels of a pyramid, one after the other; a cube's level holds its six sides, +x -x +y -y +z -z as in OpenGL.
struct Pyramid {
  int32_t levels, channels, wrap;
  int64_t offset[MOST_MIPS];  // texels
  int32_t height[MOST_MIPS], width[MOST_MIPS];

  Pyramid(int32_t levels, int32_t channels, int32_t wrap, const int32_t* sizes)
      : levels(levels), channels(channels), wrap(wrap) {
    int64_t place = 0;
    for (int l = 0; l < levels; l++) {
      height[l] = sizes[2 * l];
      width[l] = sizes[2 * l + 1];
      offset[l] = place;
      place += (int64_t)height[l] * width[l] * (wrap == WRAP_CUBE ? 6 : 1);
    }
  }
};

// A side of the cube has axes s (right), t (down) and m (outwards): which coordinate each is, and its sign.
struct CubeSide {
  int number, s_axis, t_axis, m_axis;
  real s_sign, t_sign, m_sign;
};

D3D_FN CubeSide cube_side(int number) {
  int axis = number / 2;
  real sign = number % 2 ? (real)-1 : (real)1;
  return {number, axis == 0 ? 2 : 0, axis == 1 ? 2 : 1, axis, axis == 1 ? (real)1 : (axis == 0 ? -sign : sign),
          axis == 1 ? sign : (real)-1, sign};
}

D3D_FN CubeSide side_towards(const real* d) {
  real x = std::fabs(d[0]), y = std::fabs(d[1]), z = std::fabs(d[2]);
  int axis = x >= y && x >= z ? 0 : (y >= z ? 1 : 2);
  return cube_side(2 * axis + (d[axis] < 0));
}

D3D_FN int64_t within(int64_t i, int64_t size) { return i < 0 ? 0 : (i < size ? i : size - 1); }

// The four texels around a place in a level, and how far it is from the first of them.
struct Taps {
  int64_t texel[4];  // upper left, upper right, lower left, lower right
  real right, down;
};

D3D_FN int64_t wrapped(int64_t i, int64_t size, int32_t wrap) {
  if (i >= 0 && i < size) return i;
  if (wrap == WRAP_CLAMP) return within(i, size);
  int64_t rest = i % size;
  return rest < 0 ? rest + size : rest;
}

// A texel beside a side of the cube is the one on another side that its centre, on the side's prolonged plane, points to.
D3D_FN int64_t cube_texel(const CubeSide& side, int64_t row, int64_t column, int64_t size) {
  if (row >= 0 && column >= 0 && row < size && column < size) return (side.number * size + row) * size + column;
  real d[3], scale = 1 / (real)size;
  d[side.s_axis] = side.s_sign * ((real)(2 * column + 1) * scale - 1);
  d[side.t_axis] = side.t_sign * ((real)(2 * row + 1) * scale - 1);
  d[side.m_axis] = side.m_sign;
  CubeSide to = side_towards(d);
  real half = (real)0.5 * (real)size, away = std::fabs(d[to.m_axis]);
  row = (int64_t)std::floor((to.t_sign * d[to.t_axis] / away + 1) * half);
  column = (int64_t)std::floor((to.s_sign * d[to.s_axis] / away + 1) * half);
  return (to.number * size + within(row, size)) * size + within(column, size);
}

struct TextureLookup {
  Pyramid pyramid;
  const real *texels, *places, *levels;  // places: u v, or a direction; levels may be null

  D3D_FN int dimensions() const { return pyramid.wrap == WRAP_CUBE ? 3 : 2; }

  D3D_FN Taps taps(const real* place, int level) const {
    int64_t height = pyramid.height[level], width = pyramid.width[level];
    real x, y;
    CubeSide side{};
    if (pyramid.wrap == WRAP_CUBE) {
      side = side_towards(place);
      real away = std::fabs(place[side.m_axis]);
      x = (side.s_sign * place[side.s_axis] / away + 1) * (real)0.5 * (real)width - (real)0.5;
      y = (side.t_sign * place[side.t_axis] / away + 1) * (real)0.5 * (real)height - (real)0.5;
    } else {
      x = place[0] * (real)width - (real)0.5;
      y = place[1] * (real)height - (real)0.5;
    }
    Taps taps;
    real left = std::floor(x), top = std::floor(y);
    taps.right = x - left;
    taps.down = y - top;
    // What is no number, or far too large for a pixel of any texture, still reads a texel that exists.
    const real most = (real)1e9;
    int64_t column = (int64_t)(left > -most ? smaller(left, most) : -most);
    int64_t row = (int64_t)(top > -most ? smaller(top, most) : -most);
    const int64_t first = pyramid.offset[level];
    if (pyramid.wrap == WRAP_CUBE) {
      for (int k = 0; k < 4; k++) taps.texel[k] = first + cube_texel(side, row + k / 2, column + k % 2, width);
      return taps;
    }
    for (int k = 0; k < 2; k++) {
      int64_t line = first + wrapped(row + k, height, pyramid.wrap) * width;
      taps.texel[2 * k] = line + wrapped(column, width, pyramid.wrap);
      taps.texel[2 * k + 1] = line + wrapped(column + 1, width, pyramid.wrap);
    }
    return taps;
  }

  // The levels to mix: first, and second with the share `second_share`, which may be 0.
  D3D_FN void mix(int64_t i, int& first, int& second, real& second_share) const {
    real most = (real)(pyramid.levels - 1), level = levels ? levels[i] : 0;
    level = level > 0 ? smaller(level, most) : 0;
    first = (int)level;
    second = first + 1 < pyramid.levels ? first + 1 : first;
    second_share = level - (real)first;
  }
};

D3D_FN void corner_shares(const Taps& taps, real share, real* corner) {
  corner[0] = share * ((1 - taps.right) * (1 - taps.down));
  corner[1] = share * (taps.right * (1 - taps.down));
  corner[2] = share * ((1 - taps.right) * taps.down);
  corner[3] = share * (taps.right * taps.down);
}

template <int CHANNELS>
struct SampleTexture {
  TextureLookup in;
  real* values;

  D3D_FN void operator()(int64_t i) const {
    const int channels = CHANNELS ? CHANNELS : in.pyramid.channels;
    int level[2];
    real *out = values + i * channels, part, shares[4];
    for (int c = 0; c < channels; c++) out[c] = 0;
    in.mix(i, level[0], level[1], part);
    for (int n = 0; n < (part > 0 ? 2 : 1); n++) {
      Taps taps = in.taps(in.places + i * in.dimensions(), level[n]);
      corner_shares(taps, n ? part : 1 - part, shares);
      const real* t[4];
      for (int k = 0; k < 4; k++) t[k] = in.texels + taps.texel[k] * channels;
      for (int c = 0; c < channels; c++)
        out[c] += shares[0] * t[0][c] + shares[1] * t[1][c] + shares[2] * t[2][c] + shares[3] * t[3][c];
    }
  }
};

template <int CHANNELS>
struct SampleBackwardToTexels {
  TextureLookup in;
  const real* g_values;

  D3D_FN void operator()(int64_t i, real* g_texels) const {
    const int channels = CHANNELS ? CHANNELS : in.pyramid.channels;
    int level[2];
    const real* g = g_values + i * channels;
    bool any = false;  // most pixels of a picture see no surface
    for (int c = 0; c < channels; c++) any = any || g[c] != 0;
    if (!any) return;
    real part, shares[4];
    in.mix(i, level[0], level[1], part);
    for (int n = 0; n < (part > 0 ? 2 : 1); n++) {
      Taps taps = in.taps(in.places + i * in.dimensions(), level[n]);
      corner_shares(taps, n ? part : 1 - part, shares);
      for (int k = 0; k < 4; k++)
        for (int c = 0; c < channels; c++) add_number(g_texels + taps.texel[k] * channels + c, shares[k] * g[c]);
    }
  }
};

template <int CHANNELS>
struct SampleBackwardToPlaces {
  TextureLookup in;
  const real* g_values;
  real* g_places;

  D3D_FN void operator()(int64_t i) const {
    const int channels = CHANNELS ? CHANNELS : in.pyramid.channels;
    int level[2];
    const real *g = g_values + i * channels, *place = in.places + i * in.dimensions();
    real part, across = 0, along = 0;  // by s and t, or u and v
    const bool cube = in.pyramid.wrap == WRAP_CUBE;
    in.mix(i, level[0], level[1], part);
    for (int n = 0; n < (part > 0 ? 2 : 1); n++) {
      Taps taps = in.taps(place, level[n]);
      real right = 0, down = 0, share = (n ? part : 1 - part) * (cube ? (real)0.5 : (real)1);
      const real* t[4];
      for (int k = 0; k < 4; k++) t[k] = in.texels + taps.texel[k] * channels;
      for (int c = 0; c < channels; c++) {
        right += g[c] * ((1 - taps.down) * (t[1][c] - t[0][c]) + taps.down * (t[3][c] - t[2][c]));
        down += g[c] * ((1 - taps.right) * (t[2][c] - t[0][c]) + taps.right * (t[3][c] - t[1][c]));
      }
      across += share * (real)in.pyramid.width[level[n]] * right;
      along += share * (real)in.pyramid.height[level[n]] * down;
    }
    real* out = g_places + i * in.dimensions();
    if (!cube) {
      out[0] = across;
      out[1] = along;
      return;
    }
    CubeSide side = side_towards(place);
    real scale = 1 / std::fabs(place[side.m_axis]);
    real s = side.s_sign * place[side.s_axis] * scale, t = side.t_sign * place[side.t_axis] * scale;
    out[side.s_axis] = side.s_sign * across * scale;
    out[side.t_axis] = side.t_sign * along * scale;
    out[side.m_axis] = -side.m_sign * (across * s + along * t) * scale;
  }
};

D3D_API int d3d_mesh_texture(void* stream, int64_t pixels, int32_t levels, int32_t channels, int32_t wrap,
                             const int32_t* sizes, const real* texels, const real* places, const real* mips, real* values) {
  TextureLookup in{Pyramid(levels, channels, wrap, sizes), texels, places, mips};
  return for_channels(channels, [&](auto fixed) {
    return for_each(stream, pixels, 2048, SampleTexture<decltype(fixed)::number>{in, values});
  });
}

// `numbers` are those of all texels; either result may be null; `g_texels` comes in zeroed.
D3D_API int d3d_mesh_texture_backward(void* stream, int64_t pixels, int32_t levels, int32_t channels, int32_t wrap,
                                      const int32_t* sizes, const real* texels, const real* places, const real* mips,
                                      const real* g_values, int64_t numbers, real* g_texels, real* g_places) {
  TextureLookup in{Pyramid(levels, channels, wrap, sizes), texels, places, mips};
  return for_channels(channels, [&](auto fixed) {
    const int known = decltype(fixed)::number;
    int failed = g_places ? for_each(stream, pixels, 2048, SampleBackwardToPlaces<known>{in, g_values, g_places}) : 0;
    if (failed || !g_texels) return failed;
    return scatter(stream, 1, pixels, numbers, g_texels, SampleBackwardToTexels<known>{in, g_values});
  });
}
