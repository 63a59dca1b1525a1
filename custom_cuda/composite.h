// Emission-absorption compositing of packed samples (Max 1995, eq. 21; NeRF, arXiv:2003.08934, eq. 3):
// alpha_i = 1 - exp(-density_i (t_end_i - t_start_i)), T_i = prod_{j<i} (1 - alpha_j), w_i = T_i alpha_i.
// A ray ends at the first sample whose T_i is below early_stop; what comes behind has weight 0 and no gradient.
#pragma once
#include "lanes.h"
#include "schedule.h"

// alpha = 1 - exp(-x), keep = exp(-x) for `number` (at most GROUP) optical depths x; neither loses digits for small x.
D3D_FN void absorb(const real* density, const real* t_start, const real* t_end, int number, real* alpha, real* keep) {
#if defined(__CUDACC__)
  real less = std::expm1(-density[0] * (t_end[0] - t_start[0]));
  alpha[0] = -less;
  keep[0] = 1 + less;
  (void)number;
#else
  if (sizeof(real) == 8) {
    for (int k = 0; k < number; k++) {
      alpha[k] = -std::expm1(-density[k] * (t_end[k] - t_start[k]));
      keep[k] = 1 - alpha[k];
    }
    return;
  }
  Lanes x{};
  if (number == GROUP) {
    Lanes d, a, b;
    memcpy(&d, density, sizeof d);
    memcpy(&a, t_start, sizeof a);
    memcpy(&b, t_end, sizeof b);
    x = -d * (b - a);
  } else {
    for (int k = 0; k < number; k++) x[k] = -density[k] * (t_end[k] - t_start[k]);
  }
  Lanes power, series;
  exp_in_parts(x, power, series);
  Lanes fraction = power * series;
  Lanes transparent = power + fraction, opaque = (1 - power) - fraction;
  memcpy(keep, &transparent, sizeof transparent);
  memcpy(alpha, &opaque, sizeof opaque);
#endif
}

struct Composite {
  const int32_t* offsets;
  const real *density, *rgb, *t_start, *t_end;
  real early_stop;
  real *weights, *rgb_out, *depth, *opacity;

  D3D_FN void operator()(int64_t ray) const {
    int64_t i = offsets[ray], end = offsets[ray + 1];
    real transmittance = 1, red = 0, green = 0, blue = 0, distance = 0;
    real alpha[GROUP], keep[GROUP];
    for (; i < end && transmittance >= early_stop; i += GROUP) {
      int number = (int)(end - i < GROUP ? end - i : GROUP);
      absorb(density + i, t_start + i, t_end + i, number, alpha, keep);
      for (int k = 0; k < number; k++) {
        int64_t j = i + k;
        bool alive = transmittance >= early_stop;
        real weight = alive ? transmittance * alpha[k] : 0;
        transmittance = alive ? transmittance * keep[k] : transmittance;
        weights[j] = weight;
        red += weight * rgb[3 * j];
        green += weight * rgb[3 * j + 1];
        blue += weight * rgb[3 * j + 2];
        distance += weight * (real)0.5 * (t_start[j] + t_end[j]);
      }
    }
    for (; i < end; i++) weights[i] = 0;
    rgb_out[3 * ray] = red;
    rgb_out[3 * ray + 1] = green;
    rgb_out[3 * ray + 2] = blue;
    depth[ray] = distance;
    opacity[ray] = 1 - transmittance;
  }
};

// With G_i = d loss / d w_i, d loss / d density_i = (t_end_i - t_start_i) (T_{i+1} G_i - sum_{j>i} w_j G_j). The sum
// behind i is the total, known from the outputs, less what has been passed: one walk from front to back suffices, and
// it takes the very decisions of the forward walk about where the ray ends.
struct CompositeBackward {
  const int32_t* offsets;
  const real *density, *rgb, *t_start, *t_end;
  real early_stop;
  const real *weights, *rgb_out, *depth, *opacity;
  const real *g_weights, *g_rgb, *g_depth, *g_opacity;  // each may be null
  real *density_gradient, *rgb_gradient;

  D3D_FN void operator()(int64_t ray) const {
    int64_t i = offsets[ray], end = offsets[ray + 1];
    real g_red = g_rgb ? g_rgb[3 * ray] : 0, g_green = g_rgb ? g_rgb[3 * ray + 1] : 0, g_blue = g_rgb ? g_rgb[3 * ray + 2] : 0;
    real g_distance = g_depth ? g_depth[ray] : 0, g_alpha = g_opacity ? g_opacity[ray] : 0;
    real behind = g_red * rgb_out[3 * ray] + g_green * rgb_out[3 * ray + 1] + g_blue * rgb_out[3 * ray + 2];
    behind += g_distance * depth[ray] + g_alpha * opacity[ray];
    if (g_weights)
      for (int64_t j = i; j < end; j++) behind += weights[j] * g_weights[j];
    real transmittance = 1, alpha[GROUP], keep[GROUP];
    for (; i < end && transmittance >= early_stop; i += GROUP) {
      int number = (int)(end - i < GROUP ? end - i : GROUP);
      absorb(density + i, t_start + i, t_end + i, number, alpha, keep);
      for (int k = 0; k < number; k++) {
        int64_t j = i + k;
        bool alive = transmittance >= early_stop;
        real weight = weights[j], after = transmittance * keep[k];
        real g = g_red * rgb[3 * j] + g_green * rgb[3 * j + 1] + g_blue * rgb[3 * j + 2];
        g += g_distance * (real)0.5 * (t_start[j] + t_end[j]) + g_alpha + (g_weights ? g_weights[j] : 0);
        behind -= weight * g;
        density_gradient[j] = alive ? (t_end[j] - t_start[j]) * (after * g - behind) : 0;
        rgb_gradient[3 * j] = weight * g_red;
        rgb_gradient[3 * j + 1] = weight * g_green;
        rgb_gradient[3 * j + 2] = weight * g_blue;
        transmittance = alive ? after : transmittance;
      }
    }
    for (; i < end; i++) density_gradient[i] = rgb_gradient[3 * i] = rgb_gradient[3 * i + 1] = rgb_gradient[3 * i + 2] = 0;
  }
};

const int64_t COMPOSITED_RAYS_A_BLOCK = 128;

D3D_API int d3d_composite(void* stream, int64_t rays, const int32_t* offsets, const real* density, const real* rgb,
                          const real* t_start, const real* t_end, double early_stop, real* weights, real* rgb_out,
                          real* depth, real* opacity) {
  Composite item{offsets, density, rgb, t_start, t_end, (real)early_stop, weights, rgb_out, depth, opacity};
  return for_each(stream, rays, COMPOSITED_RAYS_A_BLOCK, item);
}

D3D_API int d3d_composite_backward(void* stream, int64_t rays, const int32_t* offsets, const real* density,
                                   const real* rgb, const real* t_start, const real* t_end, double early_stop,
                                   const real* weights, const real* rgb_out, const real* depth, const real* opacity,
                                   const real* g_weights, const real* g_rgb, const real* g_depth, const real* g_opacity,
                                   real* density_gradient, real* rgb_gradient) {
  CompositeBackward item{offsets, density,   rgb,   t_start,   t_end, (real)early_stop, weights,          rgb_out,
                         depth,   opacity, g_weights, g_rgb, g_depth,   g_opacity,        density_gradient, rgb_gradient};
  return for_each(stream, rays, COMPOSITED_RAYS_A_BLOCK, item);
}
