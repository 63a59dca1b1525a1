// Which Gaussians a tile has to look at, from near to far. Every (Gaussian, tile) meeting has a slot; the slots of pair i
// are offsets[i] to offsets[i + 1], row by row over the tiles of its box. The result is a list of slots sorted by
// (camera, tile), then by depth, then by the Gaussian's number: `order`, and in `pairs` whose slots they are; each tile's
// part starts where `tile_offsets` says.
#pragma once
#include "splat_project.h"

struct TileGrid {
  int32_t across, down;
  D3D_FN int64_t number() const { return (int64_t)across * down; }
};

D3D_FN TileGrid tiles_of(int32_t width, int32_t height) {
  return {(width + SPLAT_TILE - 1) / SPLAT_TILE, (height + SPLAT_TILE - 1) / SPLAT_TILE};
}

// visit(slot, tile) for the tiles of a box, in the order of its slots.
template <class Visit>
D3D_FN void for_tiles_of(const int16_t* box, int32_t across, int64_t slot, Visit visit) {
  for (int y = box[1] / SPLAT_TILE; y <= (box[3] - 1) / SPLAT_TILE; y++)
    for (int x = box[0] / SPLAT_TILE; x <= (box[2] - 1) / SPLAT_TILE; x++) visit(slot++, (int64_t)y * across + x);
}

// A positive float read as an integer sorts as the float does.
typedef std::conditional<sizeof(real) == 4, uint32_t, uint64_t>::type DepthKey;

D3D_FN DepthKey depth_key(real depth) {
  DepthKey key;
  memcpy(&key, &depth, sizeof key);
  return key;
}

#if defined(__CUDACC__)
#include <cub/device/device_radix_sort.cuh>

struct SlotKeys {
  int64_t splats;
  TileGrid grid;
  const int16_t* boxes;
  const real* depths;
  const int32_t* offsets;
  uint64_t* keys;
  int32_t *slots, *owners;

  __device__ void operator()(int64_t i) const {
    if (offsets[i] == offsets[i + 1]) return;
    uint64_t tiles_before = (uint64_t)(i / splats * grid.number()), depth = depth_key(depths[i]);
    for_tiles_of(boxes + 4 * i, grid.across, offsets[i], [&](int64_t slot, int64_t tile) {
      keys[slot] = ((tiles_before + (uint64_t)tile) << 32) | depth;
      slots[slot] = (int32_t)slot;
      owners[slot] = (int32_t)i;
    });
  }
};

struct TileStarts {
  int64_t total, tiles;
  const uint64_t* keys;
  const int32_t *order, *owners;
  int32_t *pairs, *tile_offsets;

  __device__ void operator()(int64_t j) const {
    pairs[j] = owners[order[j]];
    int64_t tile = (int64_t)(keys[j] >> 32), before = j ? (int64_t)(keys[j - 1] >> 32) : -1;
    for (int64_t t = before + 1; t <= tile; t++) tile_offsets[t] = (int32_t)j;
    if (j == total - 1)
      for (int64_t t = tile + 1; t <= tiles; t++) tile_offsets[t] = (int32_t)total;
  }
};

// Called twice: with no workspace it only says how many bytes it wants. `total`, the number of slots, is not 0. The radix
// sort is stable, and slots enter it in the order of their pairs, so that ties are broken as on the CPU.
D3D_API int d3d_splat_bin(void* stream, int64_t cameras, int64_t splats, int32_t width, int32_t height, int64_t total,
                          const int16_t* boxes, const real* depths, const int32_t* offsets, uint8_t* workspace,
                          int64_t* workspace_bytes, int32_t* order, int32_t* pairs, int32_t* tile_offsets) {
  TileGrid grid = tiles_of(width, height);
  int64_t tiles = cameras * grid.number();
  int bits = 32;
  while (bits < 64 && (tiles >> (bits - 32))) bits++;
  uint64_t* keys = (uint64_t*)workspace;
  uint64_t* sorted = keys + total;
  int32_t* slots = (int32_t*)(sorted + total);
  int32_t* owners = slots + total;
  int64_t own_bytes = (total * 24 + 255) / 256 * 256;
  size_t sort_bytes = 0;
  cudaError_t error = cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, keys, sorted, slots, order, total, 0, bits,
                                                      (cudaStream_t)stream);
  if (error) return (int)error;
  if (!workspace) {
    *workspace_bytes = own_bytes + (int64_t)sort_bytes;
    return 0;
  }
  int failed = for_each(stream, cameras * splats, 0, SlotKeys{splats, grid, boxes, depths, offsets, keys, slots, owners});
  if (failed) return failed;
  error = cub::DeviceRadixSort::SortPairs(workspace + own_bytes, sort_bytes, keys, sorted, slots, order, total, 0, bits,
                                          (cudaStream_t)stream);
  if (error) return (int)error;
  return for_each(stream, total, 0, TileStarts{total, tiles, sorted, order, owners, pairs, tile_offsets});
}

#else
#include <algorithm>
#include <vector>

struct ByDepth {
  DepthKey depth;
  uint32_t splat;
};

// Stable, eleven bits a pass.
static void sort_by_depth(std::vector<ByDepth>& seen) {
  std::vector<ByDepth> sorted(seen.size());
  std::vector<uint32_t> place(1 << 11);
  for (int shift = 0; shift < (int)(8 * sizeof(DepthKey)); shift += 11) {
    std::fill(place.begin(), place.end(), 0);
    for (const ByDepth& item : seen) place[(item.depth >> shift) & 2047]++;
    uint32_t sum = 0;
    for (uint32_t& count : place) {
      uint32_t number = count;
      count = sum;
      sum += number;
    }
    for (const ByDepth& item : seen) sorted[place[(item.depth >> shift) & 2047]++] = item;
    seen.swap(sorted);
  }
}

// A camera is a task: its Gaussians are sorted once, and then dealt out to the tiles in that order.
D3D_API int d3d_splat_bin(void*, int64_t cameras, int64_t splats, int32_t width, int32_t height, int64_t total,
                          const int16_t* boxes, const real* depths, const int32_t* offsets, uint8_t* workspace,
                          int64_t* workspace_bytes, int32_t* order, int32_t* pairs, int32_t* tile_offsets) {
  if (!workspace) {
    *workspace_bytes = 1;  // the sort has its own memory here
    return 0;
  }
  TileGrid grid = tiles_of(width, height);
  parallel(cameras, [&](int64_t camera) {
    std::vector<ByDepth> seen;
    seen.reserve(splats);
    for (int64_t n = 0; n < splats; n++) {
      int64_t i = camera * splats + n;
      if (offsets[i] != offsets[i + 1]) seen.push_back({depth_key(depths[i]), (uint32_t)n});
    }
    sort_by_depth(seen);
    std::vector<int32_t> place(grid.number() + 1, 0);
    for (const ByDepth& item : seen)
      for_tiles_of(boxes + 4 * (camera * splats + item.splat), grid.across, 0,
                   [&](int64_t, int64_t tile) { place[tile + 1]++; });
    place[0] = offsets[camera * splats];
    for (int64_t tile = 0; tile < grid.number(); tile++) {
      place[tile + 1] += place[tile];
      tile_offsets[camera * grid.number() + tile] = place[tile];
    }
    for (const ByDepth& item : seen) {
      int64_t i = camera * splats + item.splat;
      for_tiles_of(boxes + 4 * i, grid.across, offsets[i], [&](int64_t slot, int64_t tile) {
        int32_t j = place[tile]++;
        order[j] = (int32_t)slot;
        pairs[j] = (int32_t)i;
      });
    }
  });
  tile_offsets[cameras * grid.number()] = (int32_t)total;
  return 0;
}

#endif
