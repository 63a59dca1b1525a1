// Numbers that a CPU core works on together, in GCC's vector types. A GPU has none of this: its lanes are its threads.
#pragma once
#include "common.h"

// Eight even where the machine has wider registers: rays and rows of a splat hold a few dozen items, and the last, partly
// filled group wastes less.
#if defined(__CUDACC__)
const int GROUP = 1;
#elif defined(__AVX__)
const int GROUP = 8;
#else
const int GROUP = 4;  // vectors wider than the registers are many times slower than narrow ones
#endif

#if !defined(__CUDACC__)
#if defined(__SSE4_1__)
#include <immintrin.h>
#endif

typedef std::conditional<sizeof(real) == 4, int32_t, int64_t>::type RealBits;
typedef real Lanes __attribute__((vector_size(GROUP * sizeof(real))));
typedef RealBits LaneBits __attribute__((vector_size(GROUP * sizeof(real))));

// exp(x) = power + power * fraction, power = 2^n and fraction = exp(r) - 1 with |r| <= ln(2) / 2, from its Taylor series:
// good to a bit or two of float32, so the double build must not call it.
D3D_FN void exp_in_parts(Lanes x, Lanes& power, Lanes& fraction) {
  const real most = 87;  // 2^n stays a normal number
  x = x < -most ? Lanes{} - most : x;
  x = x > most ? Lanes{} + most : x;
  Lanes binary = x * (real)1.44269504088896341;
  LaneBits n = __builtin_convertvector(binary + (binary < 0 ? Lanes{} - (real)0.5 : Lanes{} + (real)0.5), LaneBits);
  // ln 2 in two parts: the first has so few digits that its product with n is exact.
  Lanes whole = __builtin_convertvector(n, Lanes);
  Lanes r = (x - whole * (real)0.693359375) + whole * (real)2.12194440e-4;
  Lanes series = (real)(1.0 / 120) + r * (real)(1.0 / 720);
  series = (real)(1.0 / 24) + r * series;
  series = (real)(1.0 / 6) + r * series;
  series = (real)0.5 + r * series;
  fraction = r + r * r * series;
  LaneBits exponent = (n + 127) << 23;
  power = (Lanes)exponent;
}

D3D_FN Lanes exp_lanes(Lanes x) {
  if (sizeof(real) == 8) {
    for (int k = 0; k < GROUP; k++) x[k] = std::exp(x[k]);
    return x;
  }
  Lanes power, fraction;
  exp_in_parts(x, power, fraction);
  return power + power * fraction;
}

// Whether a comparison holds in any lane.
D3D_FN bool any(LaneBits mask) {
#if defined(__AVX__)
  if (sizeof(mask) == sizeof(__m256i)) {
    __m256i bits;
    memcpy(&bits, &mask, sizeof bits);
    return !_mm256_testz_si256(bits, bits);
  }
#elif defined(__SSE4_1__)
  if (sizeof(mask) == sizeof(__m128i)) {
    __m128i bits;
    memcpy(&bits, &mask, sizeof bits);
    return !_mm_testz_si128(bits, bits);
  }
#endif
  RealBits found = 0;
  for (int k = 0; k < GROUP; k++) found |= mask[k];
  return found != 0;
}
#endif
