// Built once per instruction set, inside a namespace of its own. No standard or torch headers with inline functions
// here: the linker could take this file's copies of them, built for a better processor, for the whole program.
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "hydrofoil/comm/detail/reduce.h"

namespace hydrofoil::comm::detail::HYDROFOIL_REDUCE_ISA {
namespace {

constexpr int64_t kBlock = 1024;  // elements of a block of fp32 sums: stays in L1

inline uint32_t bits_of(float value) { return __builtin_bit_cast(uint32_t, value); }
inline float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

struct BFloat16 {
  static inline float widen_one(uint16_t value) { return float_of(static_cast<uint32_t>(value) << 16); }
  // To nearest even; every NaN becomes 0x7FC0, as in c10::BFloat16.
  static inline uint16_t narrow_one(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
    return static_cast<uint16_t>(value != value ? 0x7FC0U : rounded);
  }
  static inline void widen(const uint16_t* __restrict in, float* __restrict out, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] = widen_one(in[i]);
  }
  static inline void narrow(const float* __restrict in, uint16_t* __restrict out, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] = narrow_one(in[i]);
  }
};

struct Float16 {
  static inline float widen_one(uint16_t half) {
    // Shift exponent and mantissa into place; scaling by 2^112 repairs the exponent's bias, of subnormals too.
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFFU) << 13;
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
    const uint32_t special = (half & 0x7C00U) == 0x7C00U ? 0x7F800000U : 0U;
    const uint32_t quiet = (half & 0x7FFFU) > 0x7C00U ? 0x00400000U : 0U;
    return float_of(bits_of(float_of(magnitude) * 0x1p112F) | special | quiet | sign);
  }
  static inline uint16_t narrow_one(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t sign = (bits >> 16) & 0x8000U;
    const uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) return static_cast<uint16_t>(sign | 0x7E00U | ((magnitude >> 13) & 0x1FFU));
    if (magnitude >= 0x477FF000U) return static_cast<uint16_t>(sign | 0x7C00U);  // 65520 and above round to infinity
    if (magnitude < 0x38800000U) {
      // Subnormal: adding 0.5 puts the last bit of the half at the last bit of the sum, which rounds to nearest even.
      return static_cast<uint16_t>(sign | (bits_of(float_of(magnitude) + 0.5F) - 0x3F000000U));
    }
    const uint32_t rounded = magnitude + 0xFFFU + ((magnitude >> 13) & 1U);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
  }
  static inline void widen(const uint16_t* in, float* out, int64_t n) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8) {
      _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
    }
#endif
    for (; i < n; ++i) out[i] = widen_one(in[i]);
  }
  static inline void narrow(const float* in, uint16_t* out, int64_t n) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                       _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    }
#endif
    for (; i < n; ++i) out[i] = narrow_one(in[i]);
  }
};

struct Sum {
  static inline float join(float a, float b) { return a + b; }
};
struct Max {
  static inline float join(float a, float b) { return (a > b || a != a) ? a : b; }
};

// Which of two NaNs a sum keeps is up to the order of its operands, which compilers choose: every NaN becomes one.
inline float one_nan(float value) { return value != value ? float_of(0x7FC00000U) : value; }

// Two ranks on a host are common: their sum takes one loop, in registers. Elements meet at the same index only, so
// aliasing is harmless.
template <typename Join, bool kScaled>
void reduce_two_bfloat16(const ReduceArgs& args) {
  const uint16_t* a = static_cast<const uint16_t*>(args.sources[0]);
  const uint16_t* b = static_cast<const uint16_t*>(args.sources[1]);
  const float scale = args.scale;
  const auto value = [=](int64_t i) {
    const float joined = Join::join(BFloat16::widen_one(a[i]), BFloat16::widen_one(b[i]));
    return kScaled ? joined * scale : joined;
  };
  if (args.widen) {
    float* out = static_cast<float*>(args.out);
#pragma GCC ivdep
    for (int64_t i = 0; i < args.numel; ++i) out[i] = one_nan(value(i));
    return;
  }
  uint16_t* out = static_cast<uint16_t*>(args.out);
#pragma GCC ivdep
  for (int64_t i = 0; i < args.numel; ++i) out[i] = BFloat16::narrow_one(value(i));
}

template <typename Format, typename Join>
void reduce_16_bit(const ReduceArgs& args) {
  float block[kBlock];
  float next[kBlock];
  for (int64_t begin = 0; begin < args.numel; begin += kBlock) {
    const int64_t n = args.numel - begin < kBlock ? args.numel - begin : kBlock;
    float* sum = args.widen ? static_cast<float*>(args.out) + begin : block;
    Format::widen(static_cast<const uint16_t*>(args.sources[0]) + begin, sum, n);
    for (int source = 1; source < args.num_sources; ++source) {
      Format::widen(static_cast<const uint16_t*>(args.sources[source]) + begin, next, n);
      for (int64_t i = 0; i < n; ++i) sum[i] = Join::join(sum[i], next[i]);
    }
    if (args.scale != 1.0F) {
      for (int64_t i = 0; i < n; ++i) sum[i] *= args.scale;
    }
    if (!args.widen) Format::narrow(sum, static_cast<uint16_t*>(args.out) + begin, n);
  }
}

template <typename Join>
void reduce_float32(const ReduceArgs& args) {
  float* out = static_cast<float*>(args.out);
  if (args.num_sources == 2) {
    const float* a = static_cast<const float*>(args.sources[0]);
    const float* b = static_cast<const float*>(args.sources[1]);
    // Elements meet at the same index only, so aliasing is harmless.
    if (args.scale == 1.0F) {
#pragma GCC ivdep
      for (int64_t i = 0; i < args.numel; ++i) out[i] = Join::join(a[i], b[i]);
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < args.numel; ++i) out[i] = Join::join(a[i], b[i]) * args.scale;
    }
    return;
  }
  float sum[kBlock];
  for (int64_t begin = 0; begin < args.numel; begin += kBlock) {
    const int64_t n = args.numel - begin < kBlock ? args.numel - begin : kBlock;
    const float* first = static_cast<const float*>(args.sources[0]) + begin;
    for (int64_t i = 0; i < n; ++i) sum[i] = first[i];
    for (int source = 1; source < args.num_sources; ++source) {
      const float* next = static_cast<const float*>(args.sources[source]) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] = Join::join(sum[i], next[i]);
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = sum[i] * args.scale;
  }
}

// Sums wrap around: they are taken in the unsigned type, whose overflow is defined.
template <typename Signed, typename Unsigned, bool kMax>
void reduce_integer(const ReduceArgs& args) {
  Signed* out = static_cast<Signed*>(args.out);
  Signed result[kBlock];
  for (int64_t begin = 0; begin < args.numel; begin += kBlock) {
    const int64_t n = args.numel - begin < kBlock ? args.numel - begin : kBlock;
    const Signed* first = static_cast<const Signed*>(args.sources[0]) + begin;
    for (int64_t i = 0; i < n; ++i) result[i] = first[i];
    for (int source = 1; source < args.num_sources; ++source) {
      const Signed* next = static_cast<const Signed*>(args.sources[source]) + begin;
      for (int64_t i = 0; i < n; ++i) {
        if constexpr (kMax) {
          result[i] = result[i] > next[i] ? result[i] : next[i];
        } else {
          result[i] = static_cast<Signed>(
              static_cast<Unsigned>(static_cast<Unsigned>(result[i]) + static_cast<Unsigned>(next[i])));
        }
      }
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = result[i];
  }
}

template <typename Join, bool kMax>
void reduce_typed(const ReduceArgs& args) {
  switch (args.type) {
    case ElementType::kFloat32:
      return reduce_float32<Join>(args);
    case ElementType::kBFloat16:
      if (args.num_sources == 2) {
        // A product with 1 is no copy where subnormals are flushed (torch.set_flush_denormal).
        return args.scale == 1.0F ? reduce_two_bfloat16<Join, false>(args) : reduce_two_bfloat16<Join, true>(args);
      }
      return reduce_16_bit<BFloat16, Join>(args);
    case ElementType::kFloat16:
      return reduce_16_bit<Float16, Join>(args);
    case ElementType::kInt8:
      return reduce_integer<int8_t, uint8_t, kMax>(args);
    case ElementType::kInt32:
      return reduce_integer<int32_t, uint32_t, kMax>(args);
    case ElementType::kInt64:
      return reduce_integer<int64_t, uint64_t, kMax>(args);
  }
}

}  // namespace

void reduce_buffers_isa(const ReduceArgs& args) {
  if (args.reduction == Reduction::kSum) {
    reduce_typed<Sum, false>(args);
  } else {
    reduce_typed<Max, true>(args);
  }
}

}  // namespace hydrofoil::comm::detail::HYDROFOIL_REDUCE_ISA
