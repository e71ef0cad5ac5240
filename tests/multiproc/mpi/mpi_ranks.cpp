// The backend over MPI, run by mpirun: every rank runs this program with the same filter. MASTER_ADDR and MASTER_PORT
// say where the store is.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/c10d/store_board.h"
#include "hydrofoil/comm/connect.h"
#include "hydrofoil/comm/mpi/mpi_groups.h"
#include "tests/support/collectives.h"

namespace hydrofoil::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

int number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

int world_rank() { return number("OMPI_COMM_WORLD_RANK"); }
int world_size() { return number("OMPI_COMM_WORLD_SIZE"); }

c10::intrusive_ptr<c10d::Store> store() {
  static const auto instance = [] {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(number("MASTER_PORT"));
    options.isServer = world_rank() == 0;
    options.numWorkers = world_size();
    options.timeout = seconds(60);
    return c10::make_intrusive<c10d::TCPStore>(std::getenv("MASTER_ADDR"), options);
  }();
  return instance;
}

ConnectOptions connect_options(const std::string& backend) {
  return {.rank = world_rank(),
          .size = world_size(),
          .store = store(),
          .backend = backend,
          .group = {.timeout = seconds(60)}};
}

MpiOptions mpi_options() {
  return {.rank = world_rank(), .size = world_size(), .num_channels = 1, .group = {.timeout = seconds(60)}};
}

TEST(Mpi, CollectivesEqualTheirDefinition) {
  const auto groups = connect(connect_options("mpi"));
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].backend_name(), "mpi");
  EXPECT_EQ(groups[0].rank(), world_rank());
  for (const at::ScalarType dtype : testing::comm_dtypes()) {
    for (const int64_t numel : {0, 1, 3, 1025, 600'001}) {
      testing::check_reductions(groups[0], numel, dtype);
      testing::check_moves(groups[1], numel, dtype);
    }
  }
  groups[0].barrier();
}

TEST(Mpi, SlicesLargerThanAMessageGoInPieces) {
  MpiOptions options = mpi_options();
  options.max_message_bytes = 1000;
  const auto groups = make_mpi_groups(options);
  for (const int64_t numel : {1, 499, 25'001}) {
    testing::check_reductions(groups[0], numel, at::kBFloat16);
    testing::check_moves(groups[0], numel, at::kInt);
  }
}

TEST(Mpi, ChannelsAreIndependent) {
  const auto channels = connect(connect_options("mpi"));
  at::Tensor buffers[2] = {at::full({100'001}, 1.0), at::full({100'001}, 1.0)};
  std::vector<Work> works;
  for (int i = 0; i < 10; ++i) {
    const auto channel = static_cast<size_t>((i + world_rank()) % 2);
    works.push_back(channels[channel].all_reduce(buffers[channel], ReduceOp::kAvg, {.unit = "u", .signature = 7}));
  }
  for (auto& work : works) work.wait();
  for (const auto& buffer : buffers) EXPECT_TRUE(at::equal(buffer, at::full({100'001}, 1.0)));
}

TEST(Mpi, RankAndSizeMustBeThoseOfMpi) {
  const std::string error = testing::error_of<InvalidArgument>([&] {
    MpiOptions options = mpi_options();
    options.rank = world_size() - 1 - world_rank();
    options.size = world_size() + 1;
    static_cast<void>(make_mpi_groups(options));
  });
  const std::string size = std::to_string(world_size());
  EXPECT_NE(error.find("of " + std::to_string(world_size() + 1) + " by the environment"), std::string::npos) << error;
  EXPECT_NE(error.find("rank " + std::to_string(world_rank()) + " of " + size + " in MPI_COMM_WORLD"),
            std::string::npos)
      << error;
}

// Across two hosts only.
TEST(MpiHosts, AutoTakesMpiWhereMemoryCannotBeShared) {
  const auto groups = connect(connect_options("auto"));
  EXPECT_EQ(groups[0].backend_name(), "mpi");
  testing::check_reductions(groups[0], 70'001, at::kBFloat16);
  testing::check_moves(groups[1], 70'001, at::kFloat);
}

// The tests below end with a failed group, so MPI is not finalised and mpirun ends with an error: one at a time, judged
// by what rank 0 says.
void expect_in(const std::string& error, const std::vector<std::string>& parts) {
  for (const auto& part : parts) EXPECT_NE(error.find(part), std::string::npos) << part << "\nin: " << error;
  if (!::testing::Test::HasFailure() && world_rank() == 0) std::cout << "as it should be: " << error << std::endl;
}

TEST(MpiErrors, DeadlineNamesWhoIsMissing) {
  ConnectOptions options = connect_options("mpi");
  options.group.timeout = milliseconds(1500);
  const auto groups = connect(options);
  groups[0].barrier();
  if (world_rank() == 1) {
    std::this_thread::sleep_for(seconds(4));
    return;
  }
  const std::string error = testing::error_of<CommError>(
      [&] { groups[0].all_reduce(at::zeros({7}), ReduceOp::kSum, {.unit = "layers.2"}).wait(); });
  expect_in(error, {"all_reduce of unit layers.2 (numel 7, float32, sum) in group world (mpi) on rank 0",
                    "deadline of 1500 ms passed; did not arrive: rank 1"});
}

TEST(MpiErrors, DisagreementIsNamed) {
  const auto groups = connect(connect_options("mpi"));
  const std::string error = testing::error_of<CommError>([&] {
    at::Tensor buffer = at::zeros({world_rank() == 1 ? 5 : 8});
    groups[0].all_reduce(buffer, ReduceOp::kSum, {.unit = "head", .signature = 3}).wait();
  });
  expect_in(error, {"disagree at operation 1", "rank 0: all_reduce of unit head (numel 8",
                    "rank 1: all_reduce of unit "
                    "head (numel 5"});
}

TEST(MpiErrors, ShorterMessageIsNamed) {
  const auto groups = connect(connect_options("mpi"));
  if (world_rank() == 1) return groups[0].send(at::zeros({3}), 0).wait();
  if (world_rank() != 0) return;
  const std::string error = testing::error_of<CommError>([&] { groups[0].recv(at::zeros({4}), 1).wait(); });
  expect_in(error, {"recv from 1 (numel 4, float32) in group world (mpi) on rank 0: rank 1 sent 12 bytes"});
}

}  // namespace
}  // namespace hydrofoil::comm
