#include <gtest/gtest.h>

#include <cstdlib>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/cpu_features.h"
#include "hydrofoil/base/debug.h"
#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/base/transitions.h"

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

TEST(DebugChecks, AreWordsOfTheEnvironment) {
  const DebugChecks two = parse_debug_checks("memory|state");
  EXPECT_TRUE(two.memory && two.state && !two.comm);
  EXPECT_TRUE(parse_debug_checks("comm,memory").comm);
  EXPECT_TRUE(parse_debug_checks("memory, comm ").comm);
  setenv("HYDROFOIL_DEBUG", "comm", 1);
  EXPECT_TRUE(debug_checks_from_environment().comm);
  unsetenv("HYDROFOIL_DEBUG");
  EXPECT_FALSE(debug_checks_from_environment().comm);
  for (const char* wrong : {"com", "memory,", ",comm", "memory comm", "1"}) {
    EXPECT_THROW((void)parse_debug_checks(wrong), InvalidArgument) << wrong;
  }
}

TEST(Transitions, AllowTheListedOnesAndNameTheOthers) {
  enum class State { kOpen, kClosed };
  static constexpr Transitions<2> kTransitions = {.names = {"open", "closed"},
                                                  .allowed = {{{false, true}, {false, false}}}};
  State state = State::kOpen;
  kTransitions.move(state, State::kClosed, "door", "front", false);
  EXPECT_EQ(state, State::kClosed);
  try {
    kTransitions.move(state, State::kOpen, "door", "front", false);
    FAIL() << "no exception";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("door front cannot go from closed to open"), std::string::npos);
  }
  EXPECT_EQ(state, State::kClosed);
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

TEST(Log, InfoIsOfRankZero) {
  const char* before = std::getenv("RANK");
  const std::string saved = before == nullptr ? "" : before;
  for (const char* rank : {"0", "1", "10"}) {
    setenv("RANK", rank, 1);
    testing::internal::CaptureStderr();
    log_info("told");
    log_warning("warned");
    log_info_of_rank("asked");
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_EQ(text.find("told") != std::string::npos, rank == std::string("0")) << text;
    EXPECT_NE(text.find(detail::concat("[hydrofoil rank ", rank, "] warning: warned")), std::string::npos) << text;
    EXPECT_NE(text.find("asked"), std::string::npos) << text;
  }
  before == nullptr ? unsetenv("RANK") : setenv("RANK", saved.c_str(), 1);
}

TEST(Log, SaysWhatIsAtOrAboveTheLevel) {
  for (const LogLevel level : {LogLevel::kCritical, LogLevel::kError, LogLevel::kWarning, LogLevel::kInfo}) {
    set_log_level(level);
    testing::internal::CaptureStderr();
    for (const LogLevel said : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError})
      log(said, "told");
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_EQ(text.find("error: told") != std::string::npos, level <= LogLevel::kError) << text;
    EXPECT_EQ(text.find("warning: told") != std::string::npos, level <= LogLevel::kWarning) << text;
    EXPECT_EQ(text.find("info: told") != std::string::npos, level <= LogLevel::kInfo) << text;
    EXPECT_EQ(text.find("debug: told"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace hydrofoil
