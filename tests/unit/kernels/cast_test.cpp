#include "hydrofoil/kernels/cast.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hydrofoil/base/error.h"
#include "hydrofoil/kernels/torch_types.h"
#include "tests/unit/kernels/support.h"

namespace hydrofoil::kernels {
namespace {

using testing_support::Array;
using testing_support::fill_normal;
using testing_support::isas;
using testing_support::kTypes;
using testing_support::type_name;

constexpr ElementType kNarrow[] = {ElementType::kBFloat16, ElementType::kFloat16};

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Equal bits, or both NaN.
void expect_same(const Array& got, const Array& expected, const std::string& what) {
  ASSERT_EQ(got.numel(), expected.numel());
  for (int64_t i = 0; i < got.numel(); ++i) {
    const float a = got.get(i), b = expected.get(i);
    if (std::isnan(a) && std::isnan(b)) continue;
    ASSERT_EQ(std::memcmp(&a, &b, sizeof(a)), 0) << what << " element " << i << ": got " << a << ", expected " << b;
  }
}

class CastFrom : public testing::TestWithParam<ElementType> {};
INSTANTIATE_TEST_SUITE_P(Narrow, CastFrom, testing::ValuesIn(kNarrow),
                         [](const auto& info) { return type_name(info.param); });

TEST_P(CastFrom, WidensEveryBitPatternExactly) {
  Array narrow(GetParam(), 65536), expected(ElementType::kFloat32, 65536), wide(ElementType::kFloat32, 65536);
  for (uint32_t i = 0; i < 65536; ++i) static_cast<uint16_t*>(narrow.data())[i] = static_cast<uint16_t>(i);
  for (uint32_t i = 0; i < 65536; ++i) expected.set(i, narrow.get(i));
  for (const CpuIsa isa : isas()) {
    cast({wide.data(), wide.type()}, {narrow.data(), narrow.type()}, 65536, isa);
    expect_same(wide, expected, cpu_isa_name(isa));
  }
}

TEST_P(CastFrom, RoundsToNearestEvenAsTorchDoes) {
  std::vector<uint32_t> patterns;
  // Around every value of either type: itself, the midpoint to the next one, and their neighbours.
  for (uint32_t high = 0; high < 65536; ++high) {
    for (const uint32_t low : {0x0000u, 0x0001u, 0x0FFFu, 0x1000u, 0x1001u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      patterns.push_back(high << 16 | low);
    }
  }
  // All the midpoints of subnormal fp16 results, which lie at other bits.
  for (uint32_t k = 0; k < 2048; ++k) {
    const float midpoint = std::ldexp(static_cast<float>(2 * k + 1), -25);
    uint32_t bits;
    std::memcpy(&bits, &midpoint, sizeof(bits));
    patterns.insert(patterns.end(), {bits - 1, bits, bits + 1});
  }
  std::mt19937 random(1);
  for (int i = 0; i < 200'000; ++i) patterns.push_back(random());
  const auto numel = static_cast<int64_t>(patterns.size());
  Array wide(ElementType::kFloat32, numel), expected(GetParam(), numel), narrow(GetParam(), numel);
  for (int64_t i = 0; i < numel; ++i) wide.set(i, float_of(patterns[i]));
  for (int64_t i = 0; i < numel; ++i) expected.set(i, wide.get(i));
  for (const CpuIsa isa : isas()) {
    cast({narrow.data(), narrow.type()}, {wide.data(), wide.type()}, numel, isa);
    expect_same(narrow, expected, cpu_isa_name(isa));
  }
}

class AccumulateInto : public testing::TestWithParam<std::tuple<ElementType, ElementType>> {};
INSTANTIATE_TEST_SUITE_P(Types, AccumulateInto, testing::Combine(testing::ValuesIn(kTypes), testing::ValuesIn(kTypes)),
                         [](const auto& info) {
                           return std::string(type_name(std::get<0>(info.param))) + "From" +
                                  type_name(std::get<1>(info.param));
                         });

TEST_P(AccumulateInto, ComputesInFp32AndRoundsOnce) {
  const auto [dst_type, src_type] = GetParam();
  std::mt19937 random(2);
  for (const int64_t numel : {0, 1, 7, 63, 64, 65, 1000, 4099, 150'001}) {
    Array start(dst_type, numel + 2), src(src_type, numel + 1);
    fill_normal(start, random, 1);
    fill_normal(src, random, 1);
    for (const float scale : {1.0f, 0.3f}) {
      for (const AccumulateMode mode : {AccumulateMode::kAssign, AccumulateMode::kAdd}) {
        Array expected = start;
        for (int64_t i = 0; i < numel; ++i) {
          const volatile float product = src.get(i + 1) * scale;  // not contracted with the sum
          expected.set(i + 1, mode == AccumulateMode::kAdd ? start.get(i + 1) + product : product);
        }
        for (const CpuIsa isa : isas()) {
          Array dst = start;
          accumulate({dst.data(1), dst_type}, {src.data(1), src_type}, numel, scale, mode, isa);
          expect_same(dst, expected, cpu_isa_name(isa));
        }
      }
    }
  }
}

TEST_P(AccumulateInto, SaysWhetherWhatItStoredIsFinite) {
  const auto [dst_type, src_type] = GetParam();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const int64_t numel : {1, 7, 64, 65, 1003, 150'001}) {
    Array dst(dst_type, numel), src(src_type, numel);
    const auto finite = [&](float scale, AccumulateMode mode, CpuIsa isa) {
      for (int64_t i = 0; i < numel; ++i) dst.set(i, 1.0f);
      return accumulate({dst.data(), dst_type}, {src.data(), src_type}, numel, scale, mode, isa);
    };
    for (int64_t i = 0; i < numel; ++i) src.set(i, -2.0f);
    for (const CpuIsa isa : isas()) {
      for (const AccumulateMode mode : {AccumulateMode::kAssign, AccumulateMode::kAdd}) {
        EXPECT_TRUE(finite(1.0f, mode, isa)) << numel;
        for (const int64_t place : {int64_t{0}, numel / 2, numel - 1}) {
          for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
            src.set(place, bad);
            EXPECT_FALSE(finite(1.0f, mode, isa)) << numel << " at " << place;
            EXPECT_FALSE(finite(0.5f, mode, isa)) << numel << " at " << place;
            src.set(place, -2.0f);
          }
        }
      }
    }
  }
}

TEST(Accumulate, SeesAnOverflowOfTheResult) {
  const uint16_t largest = 0x7BFF;  // fp16 65504
  uint16_t target = largest;
  EXPECT_FALSE(
      accumulate({&target, ElementType::kFloat16}, {&largest, ElementType::kFloat16}, 1, 1.0f, AccumulateMode::kAdd));
  EXPECT_TRUE(accumulate({}, {}, 0, 1.0f, AccumulateMode::kAdd));
}

TEST(Accumulate, CopiesEqualTypesBitByBit) {
  const uint32_t signalling_nan = 0x7F800001u, negative_zero = 0x80000000u, subnormal = 1;
  const uint32_t source[] = {signalling_nan, negative_zero, subnormal};
  uint32_t target[3] = {};
  accumulate({target, ElementType::kFloat32}, {source, ElementType::kFloat32}, 3, 1.0f, AccumulateMode::kAssign);
  EXPECT_EQ(std::memcmp(target, source, sizeof(source)), 0);
}

TEST(CastArguments, AreChecked) {
  float value = 1;
  const FlatOutput dst{&value, ElementType::kFloat32};
  const FlatInput src{&value, ElementType::kFloat32};
  EXPECT_THROW(cast(dst, src, -1), InvalidArgument);
  EXPECT_THROW(cast({}, src, 1), InvalidArgument);
  EXPECT_THROW(cast(dst, {}, 1), InvalidArgument);
  EXPECT_THROW(accumulate(dst, src, -1, 1.0f, AccumulateMode::kAdd), InvalidArgument);
  EXPECT_THROW(accumulate({}, src, 1, 1.0f, AccumulateMode::kAdd), InvalidArgument);
  EXPECT_NO_THROW(cast({}, {}, 0));
}

TEST(ElementTypeOf, KnowsTheFloatingTypesAndRefusesOthers) {
  EXPECT_EQ(element_type(at::kFloat), ElementType::kFloat32);
  EXPECT_EQ(element_type(at::kBFloat16), ElementType::kBFloat16);
  EXPECT_EQ(element_type(at::kHalf), ElementType::kFloat16);
  EXPECT_THROW((void)element_type(at::kDouble), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::kernels
