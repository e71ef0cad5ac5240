#include "hydrofoil/comm/job.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

#include "hydrofoil/base/error.h"
#include "tests/support/run_ranks.h"

namespace hydrofoil::comm {
namespace {

// The variables of a launcher, and none of another's.
class Launch : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : kNames) ::unsetenv(name);
  }
  void TearDown() override { SetUp(); }

  static void set(const std::map<std::string, std::string>& variables) {
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  }

  static constexpr const char* kNames[] = {"RANK",
                                           "WORLD_SIZE",
                                           "LOCAL_RANK",
                                           "MASTER_ADDR",
                                           "MASTER_PORT",
                                           "OMPI_COMM_WORLD_RANK",
                                           "OMPI_COMM_WORLD_SIZE",
                                           "OMPI_COMM_WORLD_LOCAL_RANK",
                                           "PMI_RANK",
                                           "PMI_SIZE",
                                           "TORCHELASTIC_USE_AGENT_STORE",
                                           "TORCHELASTIC_RESTART_COUNT"};
};

TEST_F(Launch, IsAWorldOfOneWithoutALauncher) {
  const auto environment = LaunchEnvironment::read();
  EXPECT_EQ(environment.rank, 0);
  EXPECT_EQ(environment.world_size, 1);
  Job job;
  EXPECT_TRUE(job.is_first());
  EXPECT_EQ(job.connect().at(1).size(), 1);
}

TEST_F(Launch, ReadsWhatTorchrunSets) {
  set({{"RANK", "3"},
       {"WORLD_SIZE", "4"},
       {"LOCAL_RANK", "1"},
       {"MASTER_ADDR", "host"},
       {"MASTER_PORT", "1234"},
       {"TORCHELASTIC_USE_AGENT_STORE", "True"},
       {"TORCHELASTIC_RESTART_COUNT", "2"}});
  const auto environment = LaunchEnvironment::read();
  EXPECT_EQ(environment.rank, 3);
  EXPECT_EQ(environment.world_size, 4);
  EXPECT_EQ(environment.local_rank, 1);
  EXPECT_EQ(environment.master_addr, "host");
  EXPECT_EQ(environment.master_port, 1234);
  EXPECT_TRUE(environment.agent_store);
  EXPECT_EQ(environment.store_prefix, "attempt_2/");
}

TEST_F(Launch, ReadsWhatMpirunSets) {
  set({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}});
  const auto environment = LaunchEnvironment::read();
  EXPECT_EQ(environment.rank, 1);
  EXPECT_EQ(environment.world_size, 2);
  EXPECT_EQ(environment.local_rank, 0);
}

TEST_F(Launch, NamesTheVariableThatIsMissingOrWrong) {
  const auto error = [] { return testing::error_of<InvalidArgument>([] { (void)LaunchEnvironment::read(); }); };
  set({{"RANK", "0"}});
  EXPECT_NE(error().find("WORLD_SIZE is not set"), std::string::npos) << error();
  set({{"WORLD_SIZE", "0"}});
  EXPECT_NE(error().find("WORLD_SIZE: got 0"), std::string::npos) << error();
  set({{"WORLD_SIZE", "2"}, {"RANK", "2"}});
  EXPECT_NE(error().find("RANK: got 2, expected 0 to 1"), std::string::npos) << error();
  set({{"RANK", "1"}, {"MASTER_PORT", "70000"}});
  EXPECT_NE(error().find("MASTER_PORT: got 70000"), std::string::npos) << error();
  ::unsetenv("RANK");
  EXPECT_NE(error().find("RANK is not set, but WORLD_SIZE is 2"), std::string::npos) << error();
}

TEST_F(Launch, NamesTheAddressWhereRanksDoNotMeet) {
  LaunchEnvironment environment;
  environment.rank = 1;
  environment.world_size = 2;
  environment.master_port = 1;  // nobody listens there
  const std::string error = testing::error_of<CommError>([&] { Job job(environment, std::chrono::milliseconds(300)); });
  EXPECT_NE(error.find("MASTER_ADDR 127.0.0.1, MASTER_PORT 1"), std::string::npos) << error;
}

}  // namespace
}  // namespace hydrofoil::comm
