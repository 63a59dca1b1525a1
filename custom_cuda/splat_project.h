// 3D Gaussians to 2D ones: EWA splatting (Zwicker et al. 2001) in the form of 3D Gaussian Splatting (Kerbl et al. 2023,
// arXiv:2308.04079, eq. 5), cov' = J W R S (J W R S)^T + blur, with the antialiasing of Mip-Splatting (arXiv:2311.16493).
// Per (camera, Gaussian) pair i = camera * splats + splat. Image coordinates in pixels: x right, y down, (0, 0) the corner.
#pragma once
#include "schedule.h"

const int SPLAT_TILE = 16;  // pixels along the side of a tile

struct Lens {  // what the cameras of a batch share, and what is worth drawing
  int32_t width, height;
  real z_near, z_far, blur, alpha_min;
  int32_t antialias;
};

D3D_FN real dot3(const real* a, const real* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// An infinity or a NaN times 0 is NaN, and stays so in a sum.
D3D_FN real nothing_if_finite(const real* values, int number) {
  real sum = 0;
  for (int k = 0; k < number; k++) sum += 0 * values[k];
  return sum;
}

const real SHORTEST_QUATERNION = (real)1e-12;

D3D_FN bool is_broken(const real* mean, const real* quaternion, const real* scale, const real* opacity) {
  real sum = nothing_if_finite(mean, 3) + nothing_if_finite(quaternion, 4) + nothing_if_finite(scale, 3);
  real squared = dot3(quaternion, quaternion) + quaternion[3] * quaternion[3];
  return !(sum + 0 * opacity[0] == 0 && squared > SHORTEST_QUATERNION * SHORTEST_QUATERNION);
}

// One Gaussian before one camera: the result, and what the way back needs.
struct Geometry {
  real view[9];                    // rows: the camera's right, down and forward in the world
  real at[3], inverse_z;           // the mean in the camera's axes
  real unit[4], inverse_norm;      // quaternion w, x, y, z
  real rotation[9], axes[9];       // R, and R S
  real slope_x, slope_y;           // x / z and y / z, clamped for the Jacobian
  bool clamped_x, clamped_y;
  real to_image[6];                // J W
  real covariance[3];              // xx, xy, yy, without blur
};

D3D_FN void rotation_of(const real* quaternion, Geometry& g) {
  g.inverse_norm = 1 / std::sqrt(dot3(quaternion, quaternion) + quaternion[3] * quaternion[3]);
  for (int k = 0; k < 4; k++) g.unit[k] = quaternion[k] * g.inverse_norm;
  real w = g.unit[0], x = g.unit[1], y = g.unit[2], z = g.unit[3];
  real rotation[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z),     2 * (x * z + w * y),
                      2 * (x * y + w * z),     1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                      2 * (x * z - w * y),     2 * (y * z + w * x),     1 - 2 * (x * x + y * y)};
  for (int k = 0; k < 9; k++) g.rotation[k] = rotation[k];
}

// c2w: OpenGL, row-major: its columns are right, up, back and the position; the axes must be orthonormal.
D3D_FN bool enters_view(const Lens& lens, const real* c2w, const real* mean, Geometry& g) {
  real from_camera[3];
  for (int k = 0; k < 3; k++) {
    g.view[k] = c2w[4 * k];
    g.view[3 + k] = -c2w[4 * k + 1];
    g.view[6 + k] = -c2w[4 * k + 2];
    from_camera[k] = mean[k] - c2w[4 * k + 3];
  }
  for (int k = 0; k < 3; k++) g.at[k] = dot3(g.view + 3 * k, from_camera);
  return g.at[2] > lens.z_near && g.at[2] < lens.z_far;
}

D3D_FN void flatten(const Lens& lens, real focal, const real* quaternion, const real* scale, Geometry& g) {
  rotation_of(quaternion, g);
  for (int k = 0; k < 9; k++) g.axes[k] = g.rotation[k] * scale[k % 3];
  g.inverse_z = 1 / g.at[2];
  // The linear approximation of the projection is meant for what is in the picture: beside it, it is taken at 1.3 times
  // the edge (as the authors' code does), or a Gaussian near the camera's plane would be stretched over everything.
  real most_x = (real)0.65 * (real)lens.width / focal, most_y = (real)0.65 * (real)lens.height / focal;
  real slope_x = g.at[0] * g.inverse_z, slope_y = g.at[1] * g.inverse_z;
  g.slope_x = clamp(slope_x, -most_x, most_x);
  g.slope_y = clamp(slope_y, -most_y, most_y);
  g.clamped_x = g.slope_x != slope_x;
  g.clamped_y = g.slope_y != slope_y;
  real a = focal * g.inverse_z, bend_x = -a * g.slope_x, bend_y = -a * g.slope_y, half[6];
  for (int k = 0; k < 3; k++) {
    g.to_image[k] = a * g.view[k] + bend_x * g.view[6 + k];
    g.to_image[3 + k] = a * g.view[3 + k] + bend_y * g.view[6 + k];
  }
  for (int r = 0; r < 6; r += 3)
    for (int k = 0; k < 3; k++)
      half[r + k] = g.to_image[r] * g.axes[k] + g.to_image[r + 1] * g.axes[3 + k] + g.to_image[r + 2] * g.axes[6 + k];
  g.covariance[0] = dot3(half, half);
  g.covariance[1] = dot3(half, half + 3);
  g.covariance[2] = dot3(half + 3, half + 3);
}

// How much fainter the blur makes the Gaussian, if its integral is to stay (Mip-Splatting, section 4.2).
D3D_FN real compensation(const real* covariance, real determinant) {
  real before = covariance[0] * covariance[2] - covariance[1] * covariance[1];
  return std::sqrt(larger(before / determinant, 0));
}

struct ProjectSplats {
  Lens lens;
  int64_t splats;
  const real *c2w, *focal, *means, *quaternions, *scales, *opacities;
  real *means2d, *depths, *conics, *opacities2d;  // all 0 where nothing is drawn
  int16_t* boxes;                                 // x0, y0, x1, y1: the pixels with alpha >= alpha_min lie inside
  int32_t* tiles;                                 // how many tiles the box touches; 0: nothing is drawn
  uint8_t* broken;                                // per splat

  D3D_FN void operator()(int64_t i) const {
    int64_t camera = i / splats, n = i % splats;
    const real *mean = means + 3 * n, *quaternion = quaternions + 4 * n, *scale = scales + 3 * n;
    means2d[2 * i] = means2d[2 * i + 1] = depths[i] = opacities2d[i] = 0;
    for (int k = 0; k < 3; k++) conics[3 * i + k] = 0;
    for (int k = 0; k < 4; k++) boxes[4 * i + k] = 0;
    tiles[i] = 0;
    bool skip = is_broken(mean, quaternion, scale, opacities + n);
    if (camera == 0) broken[n] = skip;
    Geometry g;
    if (skip || !enters_view(lens, c2w + 16 * camera, mean, g)) return;
    flatten(lens, focal[camera], quaternion, scale, g);
    real xx = g.covariance[0] + lens.blur, xy = g.covariance[1], yy = g.covariance[2] + lens.blur;
    real determinant = xx * yy - xy * xy, inverse = 1 / determinant;
    if (!(determinant > 0 && inverse > 0)) return;  // a line or a point without blur, or larger than numbers go
    real opacity = opacities[n] * (lens.antialias ? compensation(g.covariance, determinant) : 1);
    if (!(opacity > lens.alpha_min)) return;
    real x = focal[camera] * g.at[0] * g.inverse_z + (real)0.5 * (real)lens.width;
    real y = focal[camera] * g.at[1] * g.inverse_z + (real)0.5 * (real)lens.height;
    // opacity exp(-d^T conic d / 2) >= alpha_min is an ellipse; its box reaches this many standard deviations.
    real reach = std::sqrt(2 * std::log(opacity / lens.alpha_min));
    real reach_x = reach * std::sqrt(xx), reach_y = reach * std::sqrt(yy), half = (real)0.5;
    real x0 = clamp(std::ceil(x - reach_x - half), 0, (real)lens.width);
    real x1 = clamp(std::floor(x + reach_x - half) + 1, 0, (real)lens.width);
    real y0 = clamp(std::ceil(y - reach_y - half), 0, (real)lens.height);
    real y1 = clamp(std::floor(y + reach_y - half) + 1, 0, (real)lens.height);
    if (!(x1 > x0 && y1 > y0)) return;
    int box[4] = {(int)x0, (int)y0, (int)x1, (int)y1};
    for (int k = 0; k < 4; k++) boxes[4 * i + k] = (int16_t)box[k];
    tiles[i] = ((box[2] - 1) / SPLAT_TILE - box[0] / SPLAT_TILE + 1) * ((box[3] - 1) / SPLAT_TILE - box[1] / SPLAT_TILE + 1);
    means2d[2 * i] = x;
    means2d[2 * i + 1] = y;
    depths[i] = g.at[2];
    conics[3 * i] = yy * inverse;
    conics[3 * i + 1] = -xy * inverse;
    conics[3 * i + 2] = xx * inverse;
    opacities2d[i] = opacity;
  }
};

// A Gaussian adds up its cameras itself, so that no two items write to one place.
struct ProjectSplatsBackward {
  Lens lens;
  int64_t cameras, splats;
  const real *c2w, *focal, *means, *quaternions, *scales, *opacities;
  const int32_t* tiles;
  const real *conics, *g_means2d, *g_depths, *g_conics, *g_opacities2d;
  real *g_means, *g_quaternions, *g_scales, *g_opacities;

  // d loss / d covariance as a full symmetric matrix (xx, xy, yy), from the conic Q = covariance^-1: -Q G Q.
  D3D_FN void to_covariance(int64_t i, real out[3]) const {
    const real *q = conics + 3 * i, *g = g_conics + 3 * i;
    real xy = g[1] * (real)0.5;
    real a = q[0] * g[0] + q[1] * xy, b = q[0] * xy + q[1] * g[2];
    real c = q[1] * g[0] + q[2] * xy, d = q[1] * xy + q[2] * g[2];
    out[0] = -(a * q[0] + b * q[1]);
    out[1] = -(a * q[1] + b * q[2]);
    out[2] = -(c * q[1] + d * q[2]);
  }

  // opacity2d = opacity sqrt(before / after), before and after being the determinants without and with blur.
  D3D_FN real through_compensation(const real* covariance, real g_opacity2d, real opacity, real out[3]) const {
    real xx = covariance[0], xy = covariance[1], yy = covariance[2];
    real after = (xx + lens.blur) * (yy + lens.blur) - xy * xy;
    real factor = compensation(covariance, after), ratio = factor * factor;
    real g = g_opacity2d * opacity * (real)0.5 / (factor * after);
    out[0] += g * (yy - ratio * (yy + lens.blur));
    out[1] -= g * xy * (1 - ratio);
    out[2] += g * (xx - ratio * (xx + lens.blur));
    return g_opacity2d * factor;
  }

  D3D_FN void operator()(int64_t n) const {
    real g_mean[3] = {0, 0, 0}, g_scale[3] = {0, 0, 0}, g_opacity = 0;
    real g_rotation[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    const real *quaternion = quaternions + 4 * n, *scale = scales + 3 * n;
    Geometry g{};
    bool seen = false;
    for (int64_t camera = 0; camera < cameras; camera++) {
      int64_t i = camera * splats + n;
      if (!tiles[i] || !enters_view(lens, c2w + 16 * camera, means + 3 * n, g)) continue;
      flatten(lens, focal[camera], quaternion, scale, g);
      seen = true;
      real s[3], f = focal[camera];
      to_covariance(i, s);
      g_opacity += lens.antialias ? through_compensation(g.covariance, g_opacities2d[i], opacities[n], s) : g_opacities2d[i];
      // covariance = T M M^T T^T with T = J W (2 x 3) and M = R S: dT = 2 (s T M) M^T, dM = 2 T^T (s T M).
      real left[6], half[6], g_to_image[6];
      const real* t = g.to_image;
      for (int k = 0; k < 3; k++) {
        left[k] = s[0] * t[k] + s[1] * t[3 + k];
        left[3 + k] = s[1] * t[k] + s[2] * t[3 + k];
      }
      for (int r = 0; r < 6; r += 3)
        for (int k = 0; k < 3; k++)
          half[r + k] = 2 * (left[r] * g.axes[k] + left[r + 1] * g.axes[3 + k] + left[r + 2] * g.axes[6 + k]);
      for (int r = 0; r < 6; r += 3)
        for (int k = 0; k < 3; k++) g_to_image[r + k] = dot3(half + r, g.axes + 3 * k);
      for (int r = 0; r < 3; r++)
        for (int k = 0; k < 3; k++) {
          real g_axis = t[r] * half[k] + t[3 + r] * half[3 + k];
          g_scale[k] += g_axis * g.rotation[3 * r + k];
          g_rotation[3 * r + k] += g_axis * scale[k];
        }
      // T's rows are f / z (right - slope_x forward) and f / z (down - slope_y forward).
      real a = f * g.inverse_z;
      real along_x = dot3(g_to_image, g.view + 6), along_y = dot3(g_to_image + 3, g.view + 6);
      real g_a = dot3(g_to_image, g.view) - g.slope_x * along_x + dot3(g_to_image + 3, g.view + 3) - g.slope_y * along_y;
      real gx = g_means2d[2 * i] * a, gy = g_means2d[2 * i + 1] * a;
      real gz = g_depths[i] - (gx * g.at[0] + gy * g.at[1] + g_a * a) * g.inverse_z;
      if (!g.clamped_x) {
        gx -= a * along_x * g.inverse_z;
        gz += a * along_x * g.slope_x * g.inverse_z;
      }
      if (!g.clamped_y) {
        gy -= a * along_y * g.inverse_z;
        gz += a * along_y * g.slope_y * g.inverse_z;
      }
      for (int k = 0; k < 3; k++) g_mean[k] += g.view[k] * gx + g.view[3 + k] * gy + g.view[6 + k] * gz;
    }
    for (int k = 0; k < 3; k++) {
      g_means[3 * n + k] = g_mean[k];
      g_scales[3 * n + k] = g_scale[k];
    }
    g_opacities[n] = g_opacity;
    real d[4] = {0, 0, 0, 0};
    if (seen) {
      real w = g.unit[0], x = g.unit[1], y = g.unit[2], z = g.unit[3];
      const real* r = g_rotation;
      d[0] = 2 * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1]));
      d[1] = 2 * (w * (r[7] - r[5]) + y * (r[1] + r[3]) + z * (r[2] + r[6]) - 2 * x * (r[4] + r[8]));
      d[2] = 2 * (w * (r[2] - r[6]) + x * (r[1] + r[3]) + z * (r[5] + r[7]) - 2 * y * (r[0] + r[8]));
      d[3] = 2 * (w * (r[3] - r[1]) + x * (r[2] + r[6]) + y * (r[5] + r[7]) - 2 * z * (r[0] + r[4]));
      real radial = dot3(d, g.unit) + d[3] * g.unit[3];  // normalising takes away what would only make it longer
      for (int k = 0; k < 4; k++) d[k] = (d[k] - radial * g.unit[k]) * g.inverse_norm;
    }
    for (int k = 0; k < 4; k++) g_quaternions[4 * n + k] = d[k];
  }
};

const int64_t PROJECTED_PAIRS_A_BLOCK = 1024, PROJECTED_SPLATS_A_BLOCK = 256;

D3D_API int d3d_splat_project(void* stream, int64_t cameras, int64_t splats, int32_t width, int32_t height, double z_near,
                              double z_far, double blur, double alpha_min, int32_t antialias, const real* c2w,
                              const real* focal, const real* means, const real* quaternions, const real* scales,
                              const real* opacities, real* means2d, real* depths, real* conics, real* opacities2d,
                              int16_t* boxes, int32_t* tiles, uint8_t* broken) {
  Lens lens{width, height, (real)z_near, (real)z_far, (real)blur, (real)alpha_min, antialias};
  ProjectSplats item{lens,    splats, c2w,    focal,       means, quaternions, scales, opacities,
                     means2d, depths, conics, opacities2d, boxes, tiles,       broken};
  return for_each(stream, cameras * splats, PROJECTED_PAIRS_A_BLOCK, item);
}

D3D_API int d3d_splat_project_backward(void* stream, int64_t cameras, int64_t splats, int32_t width, int32_t height,
                                       double z_near, double z_far, double blur, double alpha_min, int32_t antialias,
                                       const real* c2w, const real* focal, const real* means, const real* quaternions,
                                       const real* scales, const real* opacities, const int32_t* tiles,
                                       const real* conics, const real* g_means2d, const real* g_depths,
                                       const real* g_conics, const real* g_opacities2d, real* g_means,
                                       real* g_quaternions, real* g_scales, real* g_opacities) {
  Lens lens{width, height, (real)z_near, (real)z_far, (real)blur, (real)alpha_min, antialias};
  ProjectSplatsBackward item{lens,  cameras, splats,    c2w,      focal,    means,         quaternions,
                             scales, opacities, tiles, conics,    g_means2d, g_depths, g_conics,      g_opacities2d,
                             g_means, g_quaternions, g_scales, g_opacities};
  return for_each(stream, splats, PROJECTED_SPLATS_A_BLOCK, item);
}
