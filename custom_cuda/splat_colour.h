// View-dependent colour of Gaussians: real spherical harmonics of degree 0 to 3 with the signs (Condon-Shortley) and the
// offset of 3D Gaussian Splatting: colour = max(0, 1/2 + sum_j c_j Y_j(d)), d from the camera to the Gaussian.
#pragma once
#include "schedule.h"

const int MOST_HARMONICS = 16;

// The polynomials, as functions of x, y, z; those of degree l are of degree l.
D3D_FN void harmonics(int number, const real* d, real* out) {
  real x = d[0], y = d[1], z = d[2], xx = x * x, yy = y * y, zz = z * z;
  out[0] = (real)0.28209479177387814;
  if (number > 1) {
    const real a = (real)0.4886025119029199;
    out[1] = -a * y;
    out[2] = a * z;
    out[3] = -a * x;
  }
  if (number > 4) {
    const real a = (real)1.0925484305920792;
    out[4] = a * x * y;
    out[5] = -a * y * z;
    out[6] = (real)0.31539156525252005 * (2 * zz - xx - yy);
    out[7] = -a * x * z;
    out[8] = (real)0.5462742152960396 * (xx - yy);
  }
  if (number > 9) {
    const real a = (real)-0.5900435899266435, b = (real)-0.4570457994644658;
    out[9] = a * y * (3 * xx - yy);
    out[10] = (real)2.890611442640554 * x * y * z;
    out[11] = b * y * (4 * zz - xx - yy);
    out[12] = (real)0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy);
    out[13] = b * x * (4 * zz - xx - yy);
    out[14] = (real)1.445305721320277 * z * (xx - yy);
    out[15] = a * x * (xx - 3 * yy);
  }
}

// d / d(x, y, z) of sum_j u_j Y_j.
D3D_FN void harmonics_gradient(int number, const real* d, const real* u, real* out) {
  real x = d[0], y = d[1], z = d[2], xx = x * x, yy = y * y, zz = z * z;
  out[0] = out[1] = out[2] = 0;
  if (number > 1) {
    const real a = (real)0.4886025119029199;
    out[0] -= a * u[3];
    out[1] -= a * u[1];
    out[2] += a * u[2];
  }
  if (number > 4) {
    const real a = (real)1.0925484305920792, b = (real)0.31539156525252005 * 2 * u[6], c = (real)0.5462742152960396 * 2 * u[8];
    out[0] += a * (y * u[4] - z * u[7]) + (c - b) * x;
    out[1] += a * (x * u[4] - z * u[5]) - (c + b) * y;
    out[2] += -a * (y * u[5] + x * u[7]) + 2 * b * z;
  }
  if (number > 9) {
    const real a = (real)-0.5900435899266435, b = (real)-0.4570457994644658;
    real u9 = a * u[9], u10 = (real)2.890611442640554 * u[10], u11 = b * u[11], u12 = (real)0.3731763325901154 * u[12];
    real u13 = b * u[13], u14 = (real)1.445305721320277 * u[14], u15 = a * u[15];
    out[0] += 6 * x * y * u9 + y * z * u10 - 2 * x * y * u11 - 6 * x * z * u12 + (4 * zz - 3 * xx - yy) * u13 +
              2 * x * z * u14 + 3 * (xx - yy) * u15;
    out[1] += 3 * (xx - yy) * u9 + x * z * u10 + (4 * zz - xx - 3 * yy) * u11 - 6 * y * z * u12 - 2 * x * y * u13 -
              2 * y * z * u14 - 6 * x * y * u15;
    out[2] += x * y * u10 + 8 * y * z * u11 + (6 * zz - 3 * xx - 3 * yy) * u12 + 8 * x * z * u13 + (xx - yy) * u14;
  }
}

// Unit vector from the camera's position (the last column of c2w) to the mean, and one over the distance.
D3D_FN real direction_to(const real* c2w, const real* mean, real* direction) {
  real squared = 0;
  for (int k = 0; k < 3; k++) {
    direction[k] = mean[k] - c2w[4 * k + 3];
    squared += direction[k] * direction[k];
  }
  real inverse = 1 / std::sqrt(larger(squared, (real)1e-24));  // at the camera itself: any direction, but no NaN
  for (int k = 0; k < 3; k++) direction[k] *= inverse;
  return inverse;
}

struct SplatColours {
  int64_t splats;
  int32_t number, stored;  // harmonics that are used, and that a splat has
  const real *c2w, *means, *coefficients;
  real* colours;

  D3D_FN void operator()(int64_t i) const {
    int64_t camera = i / splats, n = i % splats;
    real direction[3], basis[MOST_HARMONICS];
    direction_to(c2w + 16 * camera, means + 3 * n, direction);
    harmonics(number, direction, basis);
    const real* c = coefficients + 3 * stored * n;
    for (int channel = 0; channel < 3; channel++) {
      real sum = (real)0.5;
      for (int j = 0; j < number; j++) sum += basis[j] * c[3 * j + channel];
      colours[3 * i + channel] = sum > 0 || sum != sum ? sum : 0;  // a NaN stays one, so that someone may notice
    }
  }
};

struct SplatColoursBackward {
  int64_t cameras, splats;
  int32_t number, stored;
  const real *c2w, *means, *coefficients, *colours, *g_colours;
  real *g_means, *g_coefficients;

  D3D_FN void operator()(int64_t n) const {
    const real* c = coefficients + 3 * stored * n;
    real* g_c = g_coefficients + 3 * stored * n;
    real g_mean[3] = {0, 0, 0};
    for (int k = 0; k < 3 * stored; k++) g_c[k] = 0;
    for (int64_t camera = 0; camera < cameras; camera++) {
      int64_t i = camera * splats + n;
      real g[3], direction[3], basis[MOST_HARMONICS], u[MOST_HARMONICS], along[3];
      for (int k = 0; k < 3; k++) g[k] = colours[3 * i + k] > 0 ? g_colours[3 * i + k] : 0;
      real inverse = direction_to(c2w + 16 * camera, means + 3 * n, direction);
      harmonics(number, direction, basis);
      for (int j = 0; j < number; j++) {
        for (int k = 0; k < 3; k++) g_c[3 * j + k] += basis[j] * g[k];
        u[j] = g[0] * c[3 * j] + g[1] * c[3 * j + 1] + g[2] * c[3 * j + 2];
      }
      harmonics_gradient(number, direction, u, along);
      real radial = along[0] * direction[0] + along[1] * direction[1] + along[2] * direction[2];
      for (int k = 0; k < 3; k++) g_mean[k] += (along[k] - radial * direction[k]) * inverse;
    }
    for (int k = 0; k < 3; k++) g_means[3 * n + k] = g_mean[k];
  }
};

const int64_t COLOURED_PAIRS_A_BLOCK = 1024, COLOURED_SPLATS_A_BLOCK = 256;

D3D_API int d3d_splat_colours(void* stream, int64_t cameras, int64_t splats, int32_t number, int32_t stored,
                              const real* c2w, const real* means, const real* coefficients, real* colours) {
  SplatColours item{splats, number, stored, c2w, means, coefficients, colours};
  return for_each(stream, cameras * splats, COLOURED_PAIRS_A_BLOCK, item);
}

D3D_API int d3d_splat_colours_backward(void* stream, int64_t cameras, int64_t splats, int32_t number, int32_t stored,
                                       const real* c2w, const real* means, const real* coefficients, const real* colours,
                                       const real* g_colours, real* g_means, real* g_coefficients) {
  SplatColoursBackward item{cameras,      splats,  number,    stored,  c2w, means,
                            coefficients, colours, g_colours, g_means, g_coefficients};
  return for_each(stream, splats, COLOURED_SPLATS_A_BLOCK, item);
}
