#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <stdexcept>

#include "hydrofoil/base/error.h"
#include "hydrofoil/checkpoint/load.h"
#include "hydrofoil/checkpoint/save.h"
#include "hydrofoil/comm/local/local_group.h"
#include "hydrofoil/storage/file.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::checkpoint {
namespace {

at::Tensor values(int64_t numel, double first) {
  return at::arange(first, first + static_cast<double>(numel), at::TensorOptions().dtype(at::kFloat));
}

// Numels of the logical tensors: empty, fewer elements than ranks, odd, even.
const std::vector<int64_t> kNumels = {0, 1, 2, 7, 100, 4097};

std::string name_of(int64_t numel) { return "layers." + std::to_string(numel) + ".weight"; }

// Rank's equal slice of each tensor, as the sharding runtime cuts it; the last ranks can be empty.
std::vector<ShardTensorRecord> slices(int rank, int world_size, double first) {
  std::vector<ShardTensorRecord> records;
  for (const int64_t numel : kNumels) {
    const int64_t slice = (numel + world_size - 1) / world_size;
    const int64_t begin = std::min(numel, slice * rank);
    const int64_t count = std::min(slice, numel - begin);
    for (const char* kind : {"master", "exp_avg"}) {
      records.push_back({name_of(numel), kind, {numel}, begin, values(count, first + static_cast<double>(begin))});
    }
  }
  return records;
}

void run_with(const std::vector<comm::Group>& groups, const std::function<void(const comm::Group&)>& body) {
  testing::run_ranks(static_cast<int>(groups.size()), [&](int rank) { body(groups[static_cast<size_t>(rank)]); });
}

SaveOptions options(const std::string& directory, const comm::Group& group, storage::StageObserver on_stage = {}) {
  SaveOptions result;
  result.directory = directory;
  result.tag = "global_step1";
  result.rank = group.rank();
  result.world_size = group.size();
  result.group = group;
  result.on_stage = std::move(on_stage);
  return result;
}

void expect_version(const std::string& directory, double first, int readers) {
  for (int reader = 0; reader < readers; ++reader) {
    LoadedCheckpoint checkpoint = load_shards(directory);
    for (const ShardTensorRecord& record : slices(reader, readers, first)) {
      const at::Tensor out = at::empty({record.data.numel()}, at::kFloat);
      checkpoint.read_range(record.parameter, record.kind, record.logical_offset, record.data.numel(), out);
      EXPECT_TRUE(at::equal(out, record.data)) << record.parameter << " reader " << reader << " of " << readers;
    }
    checkpoint.verify();
  }
}

TEST(CheckpointFiles, LoadAtAnyWorldSizeWhatAnyOtherSaved) {
  for (const int writers : {1, 2, 3, 5}) {
    const storage::TemporaryDirectory directory;
    ManifestScalars scalars;
    scalars.counters["global_steps"] = writers;
    const auto groups = comm::make_local_groups(writers);
    run_with(groups, [&](const comm::Group& group) {
      save_shards(options(directory.path(), group), slices(group.rank(), writers, 10), scalars);
    });
    for (const int readers : {1, 2, 3, 4, 7}) expect_version(directory.path(), 10, readers);
    EXPECT_EQ(load_shards(directory.path()).manifest().world_size, writers);
    EXPECT_EQ(load_shards(directory.path()).scalars(), scalars);
    EXPECT_EQ(directory.names(), (std::vector<std::string>{"global_step1", "latest"}));
    EXPECT_EQ(directory.names("global_step1").size(), static_cast<size_t>(writers) + 1);
  }
}

// Every rank's outcome of a second save that goes wrong on one of them; the first checkpoint must still be whole.
std::vector<std::string> outcomes_of(const std::function<void(SaveOptions&, std::vector<ShardTensorRecord>&)>& spoil) {
  constexpr int kWorldSize = 3;
  const storage::TemporaryDirectory directory;
  const auto groups = comm::make_local_groups(kWorldSize);
  std::vector<std::string> outcomes(kWorldSize);
  run_with(groups, [&](const comm::Group& group) {
    save_shards(options(directory.path(), group), slices(group.rank(), kWorldSize, 1), {});
    SaveOptions second = options(directory.path(), group);
    std::vector<ShardTensorRecord> records = slices(group.rank(), kWorldSize, 2);
    spoil(second, records);
    try {
      save_shards(second, records, {});
    } catch (const std::exception& error) {
      outcomes[static_cast<size_t>(group.rank())] = error.what();
    }
  });
  EXPECT_EQ(directory.names(), (std::vector<std::string>{"global_step1", "latest"}));
  expect_version(directory.path(), 1, 2);
  return outcomes;
}

TEST(CheckpointFiles, ErrorOfOneRankIsAnErrorOfAll) {
  for (int failing = 0; failing < 3; ++failing) {
    const auto outcomes = outcomes_of([&](SaveOptions& save, std::vector<ShardTensorRecord>&) {
      if (save.rank != failing) return;
      save.on_stage = [](std::string_view stage) {
        if (stage == "shard written") throw SystemError("the disk of this rank is gone");
      };
    });
    for (const std::string& outcome : outcomes) {
      EXPECT_NE(outcome.find("the disk of this rank is gone"), std::string::npos) << outcome;
    }
    const std::string& other = outcomes[failing == 0 ? 1 : 0];
    EXPECT_NE(other.find("rank " + std::to_string(failing) + " failed"), std::string::npos) << other;
  }
}

TEST(CheckpointFiles, FullDiskOfOneRankLeavesThePreviousCheckpoint) {
  const auto outcomes = outcomes_of([](SaveOptions& save, std::vector<ShardTensorRecord>&) {
    if (save.rank != 0) return;
    const std::string staging = storage::AtomicDirectory::staging_path_of(save.directory + "/" + save.tag);
    save.on_stage = [staging](std::string_view stage) {
      if (stage != "prepared") return;
      std::filesystem::create_symlink("/dev/full",
                                      staging + "/rank_00002.safetensors" + std::string(storage::kPartialSuffix));
    };
  });
  for (const std::string& outcome : outcomes) {
    EXPECT_NE(outcome.find("rank_00002.safetensors"), std::string::npos) << outcome;
    EXPECT_NE(outcome.find("No space left"), std::string::npos) << outcome;
  }
}

TEST(CheckpointFiles, LostAndDoublePiecesAreNamed) {
  auto outcomes = outcomes_of([](SaveOptions& save, std::vector<ShardTensorRecord>& records) {
    if (save.rank == 1) std::erase_if(records, [](const auto& record) { return record.parameter == name_of(7); });
  });
  for (const std::string& outcome : outcomes) EXPECT_NE(outcome.find(name_of(7)), std::string::npos) << outcome;
  outcomes = outcomes_of([](SaveOptions& save, std::vector<ShardTensorRecord>& records) {
    if (save.rank == 2) records.push_back({name_of(100), "master", {100}, 0, values(100, 0)});
  });
  for (const std::string& outcome : outcomes) EXPECT_NE(outcome.find("must not overlap"), std::string::npos) << outcome;
  outcomes = outcomes_of([](SaveOptions& save, std::vector<ShardTensorRecord>& records) {
    if (save.rank == 2) records.back().shape = {1, 4097};
  });
  for (const std::string& outcome : outcomes) EXPECT_NE(outcome.find("disagree"), std::string::npos) << outcome;
}

TEST(CheckpointFiles, RanksMustSaveTheSameTag) {
  const auto outcomes = outcomes_of([](SaveOptions& save, std::vector<ShardTensorRecord>&) {
    if (save.rank == 1) save.tag = "global_step2";
  });
  for (const std::string& outcome : outcomes) {
    EXPECT_NE(outcome.find("global_step1"), std::string::npos) << outcome;
    EXPECT_NE(outcome.find("global_step2"), std::string::npos) << outcome;
  }
}

TEST(CheckpointFiles, RankOfTheGroupMustMatch) {
  const auto outcomes = outcomes_of([](SaveOptions& save, std::vector<ShardTensorRecord>&) {
    if (save.rank == 1) save.rank = 2;
  });
  for (const std::string& outcome : outcomes) EXPECT_NE(outcome.find("expected rank 2"), std::string::npos) << outcome;
}

TEST(CheckpointFiles, ErrorAtAnyStageOfRankZeroLeavesTheOldOrTheNew) {
  constexpr int kWorldSize = 2;
  for (const std::string stage :
       {"prepared", "shard written", "manifest written", "synced", "renamed", "removed", "latest written"}) {
    const storage::TemporaryDirectory directory;
    std::vector<int> failures(kWorldSize);
    run_with(comm::make_local_groups(kWorldSize), [&](const comm::Group& group) {
      save_shards(options(directory.path(), group), slices(group.rank(), kWorldSize, 1), {});
      const auto stop = [&](std::string_view reached) {
        if (reached == stage && group.rank() == 0) throw std::runtime_error("stop");
      };
      try {
        save_shards(options(directory.path(), group, stop), slices(group.rank(), kWorldSize, 2), {});
      } catch (const std::exception&) {
        failures[static_cast<size_t>(group.rank())] = 1;
      }
    });
    EXPECT_EQ(failures, (std::vector<int>{1, 1})) << stage;
    const bool committed = stage == "renamed" || stage == "removed" || stage == "latest written";
    expect_version(directory.path(), committed ? 2 : 1, 1);
  }
}

}  // namespace
}  // namespace hydrofoil::checkpoint
