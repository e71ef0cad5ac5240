#include "apps/launcher/rank_environment.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>

#include "hydrofoil/base/error.h"

namespace hydrofoil::launcher {
namespace {

// Sets a variable for one test, and puts the old value back.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value == nullptr ? unsetenv(name) : setenv(name, value, 1);
  }
  ~ScopedVariable() { old_ ? setenv(name_, old_->c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

std::map<std::string, std::string> variables_of(const RunPlan& plan, int rank) {
  const auto variables = rank_variables(plan, rank);
  return {variables.begin(), variables.end()};
}

TEST(RankVariables, NameRankWorldAndMaster) {
  const RunPlan plan{
      .num_ranks = 3, .master_addr = "10.0.0.1", .master_port = 1234, .omp_num_threads = 4, .terminal_columns = 99};
  auto variables = variables_of(plan, 2);
  const std::map<std::string, std::string> expected = {{"RANK", "2"},
                                                       {"LOCAL_RANK", "2"},
                                                       {"WORLD_SIZE", "3"},
                                                       {"LOCAL_WORLD_SIZE", "3"},
                                                       {"LOCAL_SIZE", "3"},
                                                       {"CROSS_RANK", "0"},
                                                       {"CROSS_SIZE", "1"},
                                                       {"NODE_RANK", "0"},
                                                       {"GROUP_RANK", "0"},
                                                       {"MASTER_ADDR", "10.0.0.1"},
                                                       {"MASTER_PORT", "1234"},
                                                       {"OMP_NUM_THREADS", "4"},
                                                       {"PYTHONUNBUFFERED", "1"},
                                                       {"HYDROFOIL_TERMINAL", ""}};
  EXPECT_EQ(variables, expected);
  EXPECT_EQ(variables_of(plan, 0)["HYDROFOIL_TERMINAL"], "99");
}

TEST(Plan, DividesTheCoresAmongTheRanksWhereThreadsAreNotSet) {
  const auto cores = static_cast<int64_t>(allowed_cores().size());
  {
    const ScopedVariable unset("OMP_NUM_THREADS", nullptr);
    EXPECT_EQ(make_plan({.num_ranks = 1}, 1, {}).omp_num_threads, cores);
    EXPECT_EQ(make_plan({.num_ranks = 4096}, 1, {}).omp_num_threads, 1);
    EXPECT_EQ(make_plan({.num_ranks = 1, .core_list = {allowed_cores()[0]}}, 1, {}).omp_num_threads, 1);
  }
  const ScopedVariable set("OMP_NUM_THREADS", "3");
  const RunPlan plan = make_plan({.num_ranks = 1}, 1, {});
  EXPECT_FALSE(plan.omp_num_threads);
  EXPECT_EQ(variables_of(plan, 0).count("OMP_NUM_THREADS"), 0U);
  EXPECT_NE(describe_plan(plan).find("OMP_NUM_THREADS=3 (as set)"), std::string::npos);
}

TEST(Plan, RejectsCoresThatThisProcessMayNotUse) {
  EXPECT_THROW((void)make_plan({.num_ranks = 1, .core_list = {4095}}, 1, {}), InvalidArgument);
}

TEST(Plan, TellsTheTerminalOnlyWhereRankZeroReachesIt) {
  EXPECT_EQ(make_plan({.num_ranks = 1}, 1, 80).terminal_columns, 80);
  EXPECT_FALSE(make_plan({.num_ranks = 1, .output = OutputMode::kPrefix}, 1, 80).terminal_columns);
}

struct Cores {
  int cores;
  int ranks;
};

class CoresOfRank : public testing::TestWithParam<Cores> {};

TEST_P(CoresOfRank, CoverAllCoresEvenly) {
  std::vector<int> cores(static_cast<size_t>(GetParam().cores));
  std::iota(cores.begin(), cores.end(), 10);
  std::vector<int> all;
  for (int rank = 0; rank < GetParam().ranks; ++rank) {
    const auto slice = cores_of_rank(cores, GetParam().ranks, rank);
    ASSERT_FALSE(slice.empty());
    EXPECT_LE(static_cast<int>(slice.size()), (GetParam().cores + GetParam().ranks - 1) / GetParam().ranks);
    all.insert(all.end(), slice.begin(), slice.end());
  }
  if (GetParam().cores >= GetParam().ranks) {
    EXPECT_EQ(all, cores);
  } else {
    EXPECT_EQ(static_cast<int>(all.size()), GetParam().ranks);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CoresOfRank,
                         testing::Values(Cores{1, 1}, Cores{2, 2}, Cores{7, 3}, Cores{8, 3}, Cores{2, 5}));

TEST(Gpus, AreCountedAsCudaWouldSeeThem) {
  const std::map<std::string, int64_t> cases = {{"", 0},   {"0", 1},      {"0,1,5", 3},
                                                {"-1", 0}, {"1,-1,2", 1}, {"GPU-a,GPU-b", 2}};
  for (const auto& [visible, count] : cases) {
    const ScopedVariable variable("CUDA_VISIBLE_DEVICES", visible.c_str());
    EXPECT_EQ(count_gpus(), count) << visible;
    EXPECT_EQ(default_num_ranks(), std::max<int64_t>(1, count)) << visible;
  }
}

TEST(MergeEnvironment, ReplacesByNameAndKeepsTheRest) {
  const auto merged = merge_environment({"RANK=7", "RANKS=1", "EMPTY=", "ODD"}, {{"RANK", "0"}, {"NEW", "a=b"}});
  EXPECT_EQ(merged, (std::vector<std::string>{"RANKS=1", "EMPTY=", "ODD", "RANK=0", "NEW=a=b"}));
}

TEST(RankCommand, PutsLocalRankInFrontOfTheArguments) {
  RunOptions options{.append_local_rank = true, .script = "train.py", .arguments = {"--x", ""}};
  EXPECT_EQ(rank_command(options, "py", 1), (std::vector<std::string>{"py", "train.py", "--local_rank=1", "--x", ""}));
  options = {.is_module = true, .script = "pkg.train"};
  EXPECT_EQ(rank_command(options, "py", 0), (std::vector<std::string>{"py", "-m", "pkg.train"}));
  options = {.use_python = false, .script = "./program", .arguments = {"a"}};
  EXPECT_EQ(rank_command(options, "py", 0), (std::vector<std::string>{"./program", "a"}));
}

TEST(FindPython, PrefersTheVariableThenTheNeighbour) {
  const auto folder = std::filesystem::path(testing::TempDir()) / ("hydrofoil_python_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string neighbour = (folder / "python3").string();
  std::ofstream(neighbour) << "#!/bin/sh\n";
  chmod(neighbour.c_str(), 0755);
  {
    const ScopedVariable unset("HYDROFOIL_PYTHON", nullptr);
    EXPECT_EQ(find_python({"/nowhere/hydrofoil", (folder / "hydrofoil").string()}), neighbour);
    EXPECT_EQ(find_python({"/nowhere/hydrofoil"}), "python3");
  }
  const ScopedVariable set("HYDROFOIL_PYTHON", "/some/python");
  EXPECT_EQ(find_python({(folder / "hydrofoil").string()}), "/some/python");
  std::filesystem::remove_all(folder);
}

TEST(ReservedPort, IsGivenToOneAtATime) {
  const ReservedPort first;
  const ReservedPort second;
  EXPECT_GT(first.port(), 0);
  EXPECT_NE(first.port(), second.port());
}

}  // namespace
}  // namespace hydrofoil::launcher
