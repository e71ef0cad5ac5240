#pragma once

// Conversions between element types and fp32, for the sources built once per instruction set only (see isa_kernels.h).
// A value is finite where magnitude(raw) < kInfinity. Integer and fp32 arithmetic without branches: compilers vectorize
// it, and every instruction set gives the same bits.

#include <cstdint>

#include "hydrofoil/kernels/stochastic_rounding.h"

namespace hydrofoil::kernels::HYDROFOIL_ISA {
namespace {

inline uint32_t float_bits(float value) { return __builtin_bit_cast(uint32_t, value); }
inline float bits_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }

struct Float32 {
  using Raw = float;
  static constexpr uint32_t kInfinity = 0x7F800000u;
  static inline uint32_t magnitude(Raw raw) { return float_bits(raw) & 0x7FFFFFFFu; }
  static inline float load(Raw raw) { return raw; }
  static inline Raw store(float value) { return value; }
  static inline Raw store(float value, uint32_t /*random*/) { return value; }
};

struct BFloat16 {
  using Raw = uint16_t;
  static constexpr uint32_t kInfinity = 0x7F80u;
  static inline uint32_t magnitude(Raw raw) { return raw & 0x7FFFu; }
  static inline float load(Raw raw) { return bits_float(static_cast<uint32_t>(raw) << 16); }
  static inline Raw store(float value) {
    const uint32_t bits = float_bits(value);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    return static_cast<Raw>(is_nan ? 0x7FC0u : rounded);
  }
  // Rounded up where the dropped bits and `random`, 16 bits, make a carry: see NOTE [Stochastic rounding]. The value
  // comes from arithmetic: where it is NaN, it is a quiet one, which loses no bit that says so.
  static inline Raw store(float value, uint32_t random) {
    const uint32_t bits = float_bits(value);
    return static_cast<Raw>((bits + (value == value ? random : 0u)) >> 16);
  }
};

// See NOTE [Stochastic rounding].
inline uint32_t random_bits(uint32_t x) {
  x = (x ^ (x >> 16)) * kFirstFactor;
  x = (x ^ (x >> 15)) * kSecondFactor;
  return x ^ (x >> 16);
}

// NOTE [fp16 by fp32 arithmetic]
// load: a normal number is re-biased by a multiplication with 2^-112, a subnormal one by the subtraction of a magic
// number. store: scaling to infinity and back makes overflow exact, then the addition of a power of two that depends on
// the exponent lets the processor's own rounding to nearest even drop the bits that fp16 lacks, subnormal results
// included. No operand is subnormal, so flush-to-zero modes change nothing.
struct Float16 {
  using Raw = uint16_t;
  static constexpr uint32_t kInfinity = 0x7C00u;
  static inline uint32_t magnitude(Raw raw) { return raw & 0x7FFFu; }
  static inline float load(Raw raw) {
    const uint32_t word = static_cast<uint32_t>(raw) << 16;
    const uint32_t sign = word & 0x80000000u;
    const uint32_t two_word = word + word;
    const float normal = bits_float((two_word >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
    const float subnormal = bits_float((two_word >> 17) | (126u << 23)) - 0.5f;
    const bool is_subnormal = two_word < (1u << 27);
    return bits_float(sign | float_bits(is_subnormal ? subnormal : normal));
  }
  static inline Raw store(float value) {
    const uint32_t word = float_bits(value);
    const uint32_t two_word = word + word;
    const uint32_t magnitude = word & 0x7FFFFFFFu;
    const float base = (bits_float(magnitude) * 0x1.0p+112f) * 0x1.0p-110f;
    const uint32_t exponent = two_word & 0xFF000000u;
    const uint32_t bias = exponent < 0x71000000u ? 0x71000000u : exponent;
    const uint32_t bits = float_bits(bits_float((bias >> 1) + 0x07800000u) + base);
    const uint32_t unsigned_result = ((bits >> 13) & 0x00007C00u) + (bits & 0x00000FFFu);
    const bool is_nan = magnitude > 0x7F800000u;
    return static_cast<Raw>(((word >> 16) & 0x8000u) | (is_nan ? 0x7E00u : unsigned_result));
  }
};

}  // namespace
}  // namespace hydrofoil::kernels::HYDROFOIL_ISA
