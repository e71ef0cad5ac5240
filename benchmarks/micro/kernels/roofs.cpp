#include "benchmarks/micro/kernels/roofs.h"

#include <cstring>

#include "hydrofoil/base/cpu_features.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Functions of several instruction sets in one file, each with its target attribute: nothing else is in them that a
// linker could take for the baseline code. Other processors have the plain loops, which the compiler vectorizes.

namespace hydrofoil::bench {
namespace {

double read_plain(const float* source, int64_t numel) {
  constexpr int64_t kLanes = 64;
  float sums[kLanes] = {};
  for (int64_t i = 0; i + kLanes <= numel; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += source[i + lane];
  }
  double sum = 0;
  for (const float lane : sums) sum += lane;
  return sum;
}

void update_plain(float* target, int64_t numel) {
  for (int64_t i = 0; i < numel; ++i) target[i] = target[i] * 0.5F + 1.0F;
}

double multiply_add_plain(int64_t rounds) {
  constexpr int64_t kLanes = 128;
  float sums[kLanes] = {};
  for (int64_t round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = sum * 0.5F + 1.0F;
  }
  asm volatile("" : : "g"(sums) : "memory");
  return 2.0 * kLanes * static_cast<double>(rounds);
}

#if defined(__x86_64__)

__attribute__((target("avx512f"))) double read_avx512(const float* source, int64_t numel) {
  __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
  for (int64_t i = 0; i + 64 <= numel; i += 64) {
    a = _mm512_add_ps(a, _mm512_load_ps(source + i));
    b = _mm512_add_ps(b, _mm512_load_ps(source + i + 16));
    c = _mm512_add_ps(c, _mm512_load_ps(source + i + 32));
    d = _mm512_add_ps(d, _mm512_load_ps(source + i + 48));
  }
  alignas(64) float lanes[16];
  _mm512_store_ps(lanes, _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

__attribute__((target("avx512f"))) void update_avx512(float* target, int64_t numel) {
  const __m512 half = _mm512_set1_ps(0.5F), one = _mm512_set1_ps(1.0F);
  for (int64_t i = 0; i + 16 <= numel; i += 16) {
    _mm512_store_ps(target + i, _mm512_fmadd_ps(_mm512_load_ps(target + i), half, one));
  }
}

__attribute__((target("avx512f"))) void write_avx512(float* target, int64_t numel) {
  const __m512 one = _mm512_set1_ps(1.0F);
  for (int64_t i = 0; i + 16 <= numel; i += 16) _mm512_stream_ps(target + i, one);
  _mm_sfence();
}

void write_sse2(float* target, int64_t numel) {
  const __m128 one = _mm_set1_ps(1.0F);
  for (int64_t i = 0; i + 4 <= numel; i += 4) _mm_stream_ps(target + i, one);
  _mm_sfence();
}

// Twelve chains: the latency of 4 cycles times 2 units a cycle, with room. In assembly, or they would live in memory.
__attribute__((target("avx512f"))) double multiply_add_avx512(int64_t rounds) {
  const __m512 half = _mm512_set1_ps(0.5F), one = _mm512_set1_ps(1.0F);
  __m512 a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{}, i{}, j{}, k{}, l{};
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile(
        "vfmadd213ps %13, %12, %0\n\t"
        "vfmadd213ps %13, %12, %1\n\t"
        "vfmadd213ps %13, %12, %2\n\t"
        "vfmadd213ps %13, %12, %3\n\t"
        "vfmadd213ps %13, %12, %4\n\t"
        "vfmadd213ps %13, %12, %5\n\t"
        "vfmadd213ps %13, %12, %6\n\t"
        "vfmadd213ps %13, %12, %7\n\t"
        "vfmadd213ps %13, %12, %8\n\t"
        "vfmadd213ps %13, %12, %9\n\t"
        "vfmadd213ps %13, %12, %10\n\t"
        "vfmadd213ps %13, %12, %11\n\t"
        : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l)
        : "v"(half), "v"(one));
  }
  return 2.0 * 16 * 12 * static_cast<double>(rounds);
}

__attribute__((target("avx512f,avx512bf16"))) double dot_bf16(int64_t rounds) {
  const __m512 pairs{};
  __m512 a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{}, i{}, j{}, k{}, l{};
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile(
        "vdpbf16ps %12, %12, %0\n\t"
        "vdpbf16ps %12, %12, %1\n\t"
        "vdpbf16ps %12, %12, %2\n\t"
        "vdpbf16ps %12, %12, %3\n\t"
        "vdpbf16ps %12, %12, %4\n\t"
        "vdpbf16ps %12, %12, %5\n\t"
        "vdpbf16ps %12, %12, %6\n\t"
        "vdpbf16ps %12, %12, %7\n\t"
        "vdpbf16ps %12, %12, %8\n\t"
        "vdpbf16ps %12, %12, %9\n\t"
        "vdpbf16ps %12, %12, %10\n\t"
        "vdpbf16ps %12, %12, %11\n\t"
        : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l)
        : "v"(pairs));
  }
  return 4.0 * 16 * 12 * static_cast<double>(rounds);
}

#endif

bool has_avx512() { return detected_cpu_isa() == CpuIsa::kAvx512; }

}  // namespace

#if defined(__x86_64__)

double read_floats(const float* source, int64_t numel) {
  return has_avx512() ? read_avx512(source, numel) : read_plain(source, numel);
}
void write_floats(float* target, int64_t numel) {
  has_avx512() ? write_avx512(target, numel) : write_sse2(target, numel);
}
void update_floats(float* target, int64_t numel) {
  has_avx512() ? update_avx512(target, numel) : update_plain(target, numel);
}
double multiply_add_fp32(int64_t rounds) {
  return has_avx512() ? multiply_add_avx512(rounds) : multiply_add_plain(rounds);
}
double multiply_add_bf16(int64_t rounds) { return dot_bf16(rounds); }
bool has_bf16_dot() { return __builtin_cpu_supports("avx512bf16") != 0; }

#else

double read_floats(const float* source, int64_t numel) { return read_plain(source, numel); }
void write_floats(float* target, int64_t numel) {
  for (int64_t i = 0; i < numel; ++i) target[i] = 1.0F;
}
void update_floats(float* target, int64_t numel) { update_plain(target, numel); }
double multiply_add_fp32(int64_t rounds) { return multiply_add_plain(rounds); }
double multiply_add_bf16(int64_t rounds) { return 0; }
bool has_bf16_dot() { return false; }

#endif

void copy_floats(float* target, const float* source, int64_t numel) {
  std::memcpy(target, source, static_cast<size_t>(numel) * sizeof(float));
}

}  // namespace hydrofoil::bench
