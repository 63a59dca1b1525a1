// Compositing on the CPU: a tile is a task, a vector holds neighbouring pixels of one of its rows.
#pragma once
#include "lanes.h"

const int PARTS = SPLAT_TILE / GROUP;        // vectors to a row of a tile
const int STRIPS = SPLAT_TILE * PARTS;       // vectors to a tile; strip = row * PARTS + part
// Gradients are summed in eight lanes on every machine: on one with four, two vectors take turns. So the order of the
// additions, and with it the last bit, does not depend on the instruction set.
const int SUMMING_LANES = 8, TURNS = SUMMING_LANES / GROUP;

// What a tile's pixels look like, one plane of strips per channel.
struct Canvas {
  Lanes transmittance[STRIPS];  // 0: the pixel has ended, or is none
  uint64_t alive;               // strips with a pixel that has not ended
  Lanes planes[(MOST_SPLAT_FEATURES + 2) * STRIPS];
};
static_assert(STRIPS <= 64, "a bit for every strip");

static void open_canvas(const Tile& tile, Canvas& canvas) {
  canvas.alive = 0;
  for (int strip = 0; strip < STRIPS; strip++) canvas.transmittance[strip] = Lanes{};
  for (int y = 0; y < tile.rows; y++)
    for (int x = 0; x < tile.columns; x++) {
      int strip = y * PARTS + x / GROUP;
      canvas.transmittance[strip][x % GROUP] = 1;
      canvas.alive |= (uint64_t)1 << strip;
    }
}

// Calls visit(strip, lane, first number of the pixel in an image) for the pixels of a tile.
template <class Visit>
static void for_pixels(const SplatScene& scene, const Tile& tile, Visit visit) {
  for (int y = 0; y < tile.rows; y++)
    for (int x = 0; x < tile.columns; x++) {
      int64_t pixel = (tile.camera * scene.height + tile.y0 + y) * scene.width + tile.x0 + x;
      visit(y * PARTS + x / GROUP, x % GROUP, pixel * scene.channels());
    }
}

// One Gaussian in one tile.
struct Splat {
  int64_t pair, splat;
  int32_t slot;
  real x, y, xx, xy, yy, opacity;
  int left, right, first_row, end_row;  // of its box, counted from the tile's corner
};

// What a tile's list points at is scattered over memory, and waiting for it would take longer than the arithmetic.
const int32_t LOOK_AHEAD = 6;

D3D_FN void fetch_ahead(const SplatScene& scene, const Tile& tile, int32_t j) {
  if (j + LOOK_AHEAD >= tile.end) return;
  int64_t pair = scene.pairs[j + LOOK_AHEAD];
  __builtin_prefetch(scene.means2d + 2 * pair);
  __builtin_prefetch(scene.conics + 3 * pair);
  __builtin_prefetch(scene.opacities + pair);
  __builtin_prefetch(scene.depths + pair);
  __builtin_prefetch(scene.boxes + 4 * pair);
  if (scene.viewed_number) __builtin_prefetch(scene.viewed + pair * scene.viewed_number);
  if (scene.shared_number) __builtin_prefetch(scene.shared + (pair - tile.camera * scene.splats) * scene.shared_number);
}

D3D_FN Splat splat_at(const SplatScene& scene, const Tile& tile, int32_t j) {
  Splat s;
  s.slot = scene.order[j];
  s.pair = scene.pairs[j];
  s.splat = s.pair - tile.camera * scene.splats;
  s.x = scene.means2d[2 * s.pair];
  s.y = scene.means2d[2 * s.pair + 1];
  s.xx = scene.conics[3 * s.pair];
  s.xy = scene.conics[3 * s.pair + 1];
  s.yy = scene.conics[3 * s.pair + 2];
  s.opacity = scene.opacities[s.pair];
  const int16_t* box = scene.boxes + 4 * s.pair;
  int top = box[1] - tile.y0, bottom = box[3] - tile.y0;
  s.left = box[0] - tile.x0;
  s.right = box[2] - tile.x0;
  s.first_row = top < 0 ? 0 : top;
  s.end_row = bottom > tile.rows ? tile.rows : bottom;
  return s;
}

// A Gaussian's share in a strip. Both ways call this, so that they take the same decisions.
struct Share {
  Lanes dx, dy, falloff, raw, alpha, before, weight;
  LaneBits counted;
};

// `inside`: lanes within the box, which belongs to the definition of what is drawn.
D3D_FN bool take_share(const SplatScene& scene, const Splat& s, LaneBits inside, Lanes dx, real dy, int strip, Canvas& canvas,
                       Share& share) {
  Lanes zero{};
  Lanes sigma = (real)0.5 * (s.xx * dx * dx + s.yy * dy * dy) + s.xy * dx * dy;
  share.falloff = exp_lanes(-sigma);
  share.raw = s.opacity * share.falloff;
  share.alpha = share.raw < HIGHEST_ALPHA ? share.raw : zero + HIGHEST_ALPHA;
  LaneBits visible = (share.alpha >= scene.alpha_min) & (sigma >= 0) & inside;
  if (!any(visible)) return false;
  share.before = canvas.transmittance[strip];
  Lanes after = share.before * (1 - share.alpha);
  LaneBits goes_on = after >= scene.transmittance_min;
  share.counted = visible & goes_on;
  share.weight = share.counted ? share.alpha * share.before : zero;
  share.dx = dx;
  share.dy = zero + dy;
  Lanes left = goes_on ? after : zero;
  canvas.transmittance[strip] = visible ? left : share.before;
  // An ended pixel has transmittance 0 and ends again whenever it is met: only then is there something to look up.
  if (any(visible & ~goes_on) && !any(canvas.transmittance[strip] > 0)) canvas.alive &= ~((uint64_t)1 << strip);
  return true;
}

// Calls use(strip, share, turn) for the strips of a Gaussian in which it is seen.
template <class Use>
D3D_FN void for_shares(const SplatScene& scene, const Tile& tile, const Splat& s, Canvas& canvas, Use use) {
  Lanes lane;
  for (int k = 0; k < GROUP; k++) lane[k] = (real)k;
  int first_part = s.left < 0 ? 0 : s.left / GROUP;
  int end_part = s.right > SPLAT_TILE ? PARTS : (s.right + GROUP - 1) / GROUP;
  for (int part = first_part; part < end_part; part++) {
    Lanes column = lane + (real)(part * GROUP);
    LaneBits inside = (column >= (real)s.left) & (column < (real)s.right);
    Lanes dx = column + ((real)tile.x0 + (real)0.5 - s.x);
    for (int row = s.first_row; row < s.end_row; row++) {
      int strip = row * PARTS + part;
      if (!((canvas.alive >> strip) & 1)) continue;
      Share share;
      real dy = (real)(tile.y0 + row) + (real)0.5 - s.y;
      if (take_share(scene, s, inside, dx, dy, strip, canvas, share)) use(strip, share, part % TURNS);
    }
  }
}

// CHANNELS: how many, when that is known to the compiler; 0 when it is not.
template <int CHANNELS>
static void composite_tile(const SplatScene& scene, int64_t number, real* image) {
  Tile tile = tile_at(scene, number);
  const int channels = CHANNELS ? CHANNELS : scene.channels();
  Canvas canvas;
  open_canvas(tile, canvas);
  for (int k = 0; k < channels * STRIPS; k++) canvas.planes[k] = Lanes{};
  real values[MOST_SPLAT_FEATURES + 2];
  for (int32_t j = tile.first; j < tile.end && canvas.alive; j++) {
    fetch_ahead(scene, tile, j);
    Splat s = splat_at(scene, tile, j);
    for (int k = 0; k < channels; k++) values[k] = scene.value(s.pair, s.splat, k);
    for_shares(scene, tile, s, canvas, [&](int strip, const Share& share, int) {
      for (int k = 0; k < channels; k++) canvas.planes[k * STRIPS + strip] += share.weight * values[k];
    });
  }
  for_pixels(scene, tile, [&](int strip, int lane, int64_t at) {
    for (int k = 0; k < channels; k++) image[at + k] = canvas.planes[k * STRIPS + strip][lane];
  });
}

D3D_FN real sum_lanes(const Lanes* turns) {
  typedef real Half __attribute__((vector_size(SUMMING_LANES / 2 * sizeof(real))));
  Half low, high;
  memcpy(&low, turns, sizeof low);
  memcpy(&high, (const char*)turns + sizeof low, sizeof high);
  Half both = low + high;
  return (both[0] + both[2]) + (both[1] + both[3]);
}

// The part of a slot that does not depend on the number of features, while the sums run. d alpha / d conic needs
// slope dx dx ..., d alpha / d mean is conic (slope dx, slope dy): linear, so it is taken once, after the sums.
struct ShapeSums {
  Lanes opacity[TURNS], dxdx[TURNS], dxdy[TURNS], dydy[TURNS], dx[TURNS], dy[TURNS], absolute_x[TURNS], absolute_y[TURNS];
};

D3D_FN Lanes magnitude(Lanes x) { return x < 0 ? -x : x; }

static void write_shape(const Splat& s, const ShapeSums& sums, real* out) {
  real x = sum_lanes(sums.dx), y = sum_lanes(sums.dy);
  out[SLOT_OPACITY] = sum_lanes(sums.opacity);
  out[SLOT_CONIC] = (real)0.5 * sum_lanes(sums.dxdx);
  out[SLOT_CONIC + 1] = sum_lanes(sums.dxdy);
  out[SLOT_CONIC + 2] = (real)0.5 * sum_lanes(sums.dydy);
  out[SLOT_MEAN] = -(s.xx * x + s.xy * y);
  out[SLOT_MEAN + 1] = -(s.xy * x + s.yy * y);
  out[SLOT_ABSOLUTE] = sum_lanes(sums.absolute_x);
  out[SLOT_ABSOLUTE + 1] = sum_lanes(sums.absolute_y);
}

template <int CHANNELS>
static void composite_tile_backward(const SplatScene& scene, int64_t number, const real* image, const real* g_image,
                                    bool absolute, real* slots) {
  Tile tile = tile_at(scene, number);
  const int channels = CHANNELS ? CHANNELS : scene.channels(), width = slot_width(channels - 2);
  Canvas canvas;  // its planes are the image's gradients
  Lanes behind[STRIPS];
  open_canvas(tile, canvas);
  for (int k = 0; k < channels * STRIPS; k++) canvas.planes[k] = Lanes{};
  for (int strip = 0; strip < STRIPS; strip++) behind[strip] = Lanes{};
  for_pixels(scene, tile, [&](int strip, int lane, int64_t at) {
    for (int k = 0; k < channels; k++) {
      canvas.planes[k * STRIPS + strip][lane] = g_image[at + k];
      behind[strip][lane] += g_image[at + k] * image[at + k];
    }
  });
  real values[MOST_SPLAT_FEATURES + 2];
  Lanes g_values[CHANNELS ? (CHANNELS - 1) * TURNS : (MOST_SPLAT_FEATURES + 1) * TURNS];
  int32_t j = tile.first;
  for (; j < tile.end && canvas.alive; j++) {
    fetch_ahead(scene, tile, j);
    Splat s = splat_at(scene, tile, j);
    for (int k = 0; k < channels; k++) values[k] = scene.value(s.pair, s.splat, k);
    ShapeSums sums{};
    for (int k = 0; k < (channels - 1) * TURNS; k++) g_values[k] = Lanes{};
    for_shares(scene, tile, s, canvas, [&](int strip, const Share& share, int turn) {
      Lanes gain = canvas.planes[(channels - 1) * STRIPS + strip];
      for (int k = 0; k < channels - 1; k++) {
        Lanes g = canvas.planes[k * STRIPS + strip];
        gain += g * values[k];
        g_values[k * TURNS + turn] += share.weight * g;
      }
      Lanes rest = behind[strip] - share.weight * gain;
      behind[strip] = rest;
      Lanes g_alpha = share.before * gain - rest / (1 - share.alpha);
      g_alpha = (share.counted & (share.raw < HIGHEST_ALPHA)) ? g_alpha : Lanes{};
      sums.opacity[turn] += g_alpha * share.falloff;
      Lanes slope = -g_alpha * share.raw, x = slope * share.dx, y = slope * share.dy;
      sums.dxdx[turn] += x * share.dx;
      sums.dxdy[turn] += x * share.dy;
      sums.dydy[turn] += y * share.dy;
      sums.dx[turn] += x;
      sums.dy[turn] += y;
      if (absolute) {
        sums.absolute_x[turn] += magnitude(s.xx * x + s.xy * y);
        sums.absolute_y[turn] += magnitude(s.xy * x + s.yy * y);
      }
    });
    real* out = slots + (int64_t)s.slot * width;
    for (int k = 0; k < channels - 1; k++) out[k] = sum_lanes(g_values + k * TURNS);
    write_shape(s, sums, out + channels - 1);
  }
  for (; j < tile.end; j++) memset(slots + (int64_t)scene.order[j] * width, 0, width * sizeof(real));
}

static int composite_tiles(void*, const SplatScene& scene, real* image) {
  parallel(scene.cameras * tiles_of(scene.width, scene.height).number(), [&](int64_t tile) {
    switch (scene.channels()) {
      case 5: return composite_tile<5>(scene, tile, image);
      case 8: return composite_tile<8>(scene, tile, image);
      default: return composite_tile<0>(scene, tile, image);
    }
  });
  return 0;
}

static int composite_tiles_backward(void*, const SplatScene& scene, const real* image, const real* g_image, bool absolute,
                                    real* slots) {
  parallel(scene.cameras * tiles_of(scene.width, scene.height).number(), [&](int64_t tile) {
    switch (scene.channels()) {
      case 5: return composite_tile_backward<5>(scene, tile, image, g_image, absolute, slots);
      case 8: return composite_tile_backward<8>(scene, tile, image, g_image, absolute, slots);
      default: return composite_tile_backward<0>(scene, tile, image, g_image, absolute, slots);
    }
  });
  return 0;
}
