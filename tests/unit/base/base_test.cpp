#include <gtest/gtest.h>

#include <cstdlib>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/cpu_features.h"
#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil {
namespace {

TEST(CheckArg, NamesFunctionAndValues) {
  try {
    HYDROFOIL_CHECK_ARG(1 == 2, "partition", "numel: got ", -1, ", expected >= 0");
    FAIL() << "no exception";
  } catch (const InvalidArgument& error) {
    EXPECT_STREQ(error.what(), "[partition] numel: got -1, expected >= 0");
  }
}

TEST(Assert, ThrowsInternalError) { EXPECT_THROW(HYDROFOIL_ASSERT(false, "x"), InternalError); }

TEST(Environment, RejectsWhatIsNoInteger) {
  setenv("HYDROFOIL_TEST_INT", "12", 1);
  EXPECT_EQ(environment_int("HYDROFOIL_TEST_INT"), 12);
  setenv("HYDROFOIL_TEST_INT", "12x", 1);
  EXPECT_THROW((void)environment_int("HYDROFOIL_TEST_INT"), InvalidArgument);
  unsetenv("HYDROFOIL_TEST_INT");
  EXPECT_EQ(environment_int("HYDROFOIL_TEST_INT"), std::nullopt);
}

TEST(CpuIsa, EnvironmentCanOnlyLowerIt) {
  setenv("HYDROFOIL_CPU_ISA", "scalar", 1);
  EXPECT_EQ(cpu_isa(), CpuIsa::kScalar);
  setenv("HYDROFOIL_CPU_ISA", "sse9", 1);
  EXPECT_THROW((void)cpu_isa(), InvalidArgument);
  unsetenv("HYDROFOIL_CPU_ISA");
  EXPECT_EQ(cpu_isa(), detected_cpu_isa());
}

TEST(NearestName, FindsTheTypo) {
  EXPECT_EQ(nearest_name("zero_optimisation", {"optimizer", "zero_optimization", "fp16"}), "zero_optimization");
  EXPECT_EQ(nearest_name("x", {}), "");
}

TEST(Clock, NeverGoesBack) {
  const int64_t before = monotonic_ns();
  EXPECT_LE(before, monotonic_ns());
}

}  // namespace
}  // namespace hydrofoil
