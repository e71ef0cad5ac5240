#include "hydrofoil/comm/detail/reduce.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace hydrofoil::comm::detail {
namespace {

std::vector<CpuIsa> isas() {
  std::vector<CpuIsa> all;
  for (int i = 0; i <= static_cast<int>(detected_cpu_isa()); ++i) all.push_back(static_cast<CpuIsa>(i));
  return all;
}

template <typename T>
constexpr ElementType kType = ElementType::kFloat32;
template <>
constexpr ElementType kType<c10::BFloat16> = ElementType::kBFloat16;
template <>
constexpr ElementType kType<c10::Half> = ElementType::kFloat16;
template <>
constexpr ElementType kType<int8_t> = ElementType::kInt8;
template <>
constexpr ElementType kType<int32_t> = ElementType::kInt32;
template <>
constexpr ElementType kType<int64_t> = ElementType::kInt64;

template <typename T>
T make(std::mt19937& random) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(random());
  } else {
    return static_cast<T>(std::normal_distribution<float>(0, 3)(random));
  }
}

template <typename T>
T plain(const std::vector<std::vector<T>>& sources, size_t i, Reduction reduction, float scale) {
  if constexpr (std::is_integral_v<T>) {
    T result = sources[0][i];
    for (size_t s = 1; s < sources.size(); ++s) {
      result = reduction == Reduction::kMax
                   ? std::max(result, sources[s][i])
                   : static_cast<T>(static_cast<uint64_t>(result) + static_cast<uint64_t>(sources[s][i]));
    }
    return result;
  } else {
    float result = static_cast<float>(sources[0][i]);
    for (size_t s = 1; s < sources.size(); ++s) {
      const auto next = static_cast<float>(sources[s][i]);
      result = reduction == Reduction::kMax ? std::max(result, next) : result + next;
    }
    return static_cast<T>(result * scale);
  }
}

template <typename T>
void check_all() {
  std::mt19937 random(7);
  for (const CpuIsa isa : isas()) {
    for (const int num_sources : {1, 2, 3, 5}) {
      for (const int64_t numel : {0, 1, 7, 1023, 1025, 4099}) {
        for (const Reduction reduction : {Reduction::kSum, Reduction::kMax}) {
          const float scale = reduction == Reduction::kSum ? 1.0F / 3.0F : 1.0F;
          std::vector<std::vector<T>> sources;
          std::vector<const void*> pointers;
          for (int s = 0; s < num_sources; ++s) {
            sources.emplace_back(numel);
            for (auto& value : sources.back()) value = make<T>(random);
          }
          std::vector<T> expected;
          for (int64_t i = 0; i < numel; ++i) {
            expected.push_back(plain(sources, static_cast<size_t>(i), reduction, scale));
          }
          // The last source is the output too, as in an in-place reduction.
          for (const auto& source : sources) pointers.push_back(source.data());
          reduce_buffers({.type = kType<T>,
                          .reduction = reduction,
                          .sources = pointers.data(),
                          .num_sources = num_sources,
                          .out = sources.back().data(),
                          .numel = numel,
                          .scale = scale},
                         isa);
          ASSERT_TRUE(numel == 0 ||
                      std::memcmp(expected.data(), sources.back().data(), expected.size() * sizeof(T)) == 0)
              << cpu_isa_name(isa) << " sources " << num_sources << " numel " << numel;
        }
      }
    }
  }
}

TEST(Reduce, EqualsPlainLoopFloat32) { check_all<float>(); }
TEST(Reduce, EqualsPlainLoopBFloat16) { check_all<c10::BFloat16>(); }
TEST(Reduce, EqualsPlainLoopFloat16) { check_all<c10::Half>(); }
TEST(Reduce, EqualsPlainLoopInt8) { check_all<int8_t>(); }
TEST(Reduce, EqualsPlainLoopInt32) { check_all<int32_t>(); }
TEST(Reduce, EqualsPlainLoopInt64) { check_all<int64_t>(); }

// Widening and narrowing of every 16-bit pattern, against c10's conversions.
template <typename T>
void check_every_pattern() {
  std::vector<uint16_t> in(65536);
  std::vector<uint16_t> out(65536);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint16_t>(i);
  const void* sources[] = {in.data()};
  for (const CpuIsa isa : isas()) {
    for (const float scale : {1.0F, 0.3F, 2.0F}) {
      reduce_buffers(
          {.type = kType<T>, .sources = sources, .num_sources = 1, .out = out.data(), .numel = 65536, .scale = scale},
          isa);
      for (size_t i = 0; i < in.size(); ++i) {
        T value;
        T got;
        std::memcpy(&value, &in[i], 2);
        std::memcpy(&got, &out[i], 2);
        const T expected = static_cast<T>(static_cast<float>(value) * scale);
        if (std::isnan(static_cast<float>(expected))) {
          ASSERT_TRUE(std::isnan(static_cast<float>(got))) << cpu_isa_name(isa) << " pattern " << i;
        } else {
          ASSERT_EQ(std::memcmp(&got, &expected, 2), 0) << cpu_isa_name(isa) << " pattern " << i << " scale " << scale;
        }
      }
    }
  }
}

TEST(Reduce, ConvertsEveryBFloat16Pattern) { check_every_pattern<c10::BFloat16>(); }
TEST(Reduce, ConvertsEveryFloat16Pattern) { check_every_pattern<c10::Half>(); }

TEST(Reduce, MaxLetsNanWinFromAnySide) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> a = {nan, 1, 2};
  const std::vector<float> b = {1, nan, 3};
  const void* sources[] = {a.data(), b.data()};
  for (const CpuIsa isa : isas()) {
    std::vector<float> out(3);
    reduce_buffers({.reduction = Reduction::kMax, .sources = sources, .num_sources = 2, .out = out.data(), .numel = 3},
                   isa);
    EXPECT_TRUE(std::isnan(out[0]));
    EXPECT_TRUE(std::isnan(out[1]));
    EXPECT_EQ(out[2], 3);
  }
}

// Which NaN it is, too: a vector's elements and the last few of a piece take different instructions.
TEST(Reduce, GivesTheSameBitsHoweverABufferIsCut) {
  constexpr int64_t kNumel = 3000, kPiece = 7;
  std::vector<std::vector<uint16_t>> in(3, std::vector<uint16_t>(kNumel));
  uint32_t random = 1;
  for (auto& values : in) {
    for (uint16_t& value : values) {
      random = random * 1664525U + 1013904223U;
      value = static_cast<uint16_t>((random >> 16) | ((random >> 10) % 3 == 0 ? 0x7F80U : 0U));  // many NaNs
    }
  }
  for (const int num_sources : {2, 3}) {
    for (const bool widen : {false, true}) {
      std::vector<uint32_t> expected(kNumel);
      const void* whole[] = {in[0].data(), in[1].data(), in[2].data()};
      reduce_buffers({.type = ElementType::kBFloat16,
                      .widen = widen,
                      .sources = whole,
                      .num_sources = num_sources,
                      .out = expected.data(),
                      .numel = kNumel},
                     isas().front());
      for (const CpuIsa isa : isas()) {
        std::vector<uint32_t> out(kNumel);
        for (int64_t begin = 0; begin < kNumel; begin += kPiece) {
          const void* pieces[] = {&in[0][begin], &in[1][begin], &in[2][begin]};
          reduce_buffers({.type = ElementType::kBFloat16,
                          .widen = widen,
                          .sources = pieces,
                          .num_sources = num_sources,
                          .out = reinterpret_cast<char*>(out.data()) + begin * (widen ? 4 : 2),
                          .numel = std::min(kPiece, kNumel - begin)},
                         isa);
        }
        EXPECT_EQ(out, expected) << cpu_isa_name(isa) << ", " << num_sources << " sources, widen " << widen;
      }
    }
  }
}

TEST(Reduce, TakesSixteenBitSumsInFloat32) {
  // In bf16 256 + 1 + 1 is 256; in fp32 it is 258.
  const c10::BFloat16 values[] = {256.0F, 1.0F, 1.0F};
  const void* sources[] = {&values[0], &values[1], &values[2]};
  c10::BFloat16 out;
  reduce_buffers({.type = ElementType::kBFloat16, .sources = sources, .num_sources = 3, .out = &out, .numel = 1});
  EXPECT_EQ(static_cast<float>(out), 258.0F);
}

}  // namespace
}  // namespace hydrofoil::comm::detail
