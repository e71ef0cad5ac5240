#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <stdexcept>

#include "hydrofoil/base/error.h"
#include "hydrofoil/checkpoint/load.h"
#include "hydrofoil/checkpoint/save.h"
#include "hydrofoil/checkpoint/tags.h"
#include "hydrofoil/storage/file.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::checkpoint {
namespace {

namespace fs = std::filesystem;

at::Tensor values(int64_t numel, double first, at::ScalarType dtype = at::kFloat) {
  return at::arange(first, first + static_cast<double>(numel), at::TensorOptions().dtype(dtype));
}

// Two pieces, a 0-dim tensor, an empty one, 16 bits, another kind: `first` tells versions apart.
std::vector<ShardTensorRecord> records(double first) {
  return {{"w", "parameter", {3, 5}, 7, values(8, first + 7)},
          {"w", "parameter", {3, 5}, 0, values(7, first)},
          {"w", "exp_avg", {3, 5}, 0, values(15, -first, at::kBFloat16)},
          {"scale", "parameter", {}, 0, values(1, first)},
          {"none", "parameter", {0, 4}, 0, values(0, 0)}};
}

ManifestScalars scalars() {
  ManifestScalars result;
  result.stage = 2;
  result.dtypes = {{"model", "bf16"}};
  result.counters = {{"global_steps", 12}, {"micro_steps", INT64_MAX}};
  result.states = {{"lr_scheduler", R"({"best": Infinity, "n": 123456789012345678901234567890})"}};
  result.client_state = "{\"epoch\": 3, \"name\": \"\xc3\xa4\"}";
  return result;
}

class SaveLoad : public testing::Test {
 protected:
  SaveOptions options(const std::string& tag, storage::StageObserver on_stage = {}) const {
    SaveOptions result;
    result.directory = directory_.path();
    result.tag = tag;
    result.on_stage = std::move(on_stage);
    return result;
  }

  void save(const std::string& tag, double first, storage::StageObserver on_stage = {}) const {
    save_shards(options(tag, std::move(on_stage)), records(first), scalars());
  }

  LoadedCheckpoint load(std::optional<std::string> tag = std::nullopt) const {
    return load_shards(directory_.path(), tag);
  }

  // First value of the checkpoint, after its checksums.
  double version(std::optional<std::string> tag = std::nullopt) const {
    LoadedCheckpoint checkpoint = load(std::move(tag));
    checkpoint.verify();
    const at::Tensor out = at::empty({1}, at::kFloat);
    checkpoint.read_range("w", "parameter", 0, 1, out);
    return *out.const_data_ptr<float>();
  }

  std::string path(const std::string& name) const { return directory_.path() + "/" + name; }

  template <typename Exception, typename Function>
  void expect_error(const std::string& part, Function&& function) const {
    try {
      function();
      ADD_FAILURE() << "no exception; expected '" << part << "'";
    } catch (const Exception& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }

  storage::TemporaryDirectory directory_;
};

TEST_F(SaveLoad, ReadsAnyRangeOfWhatWasSaved) {
  save("step1", 100);
  for (int64_t offset = 0; offset <= 15; ++offset) {
    for (int64_t numel = 0; numel <= 15 - offset; ++numel) {
      LoadedCheckpoint checkpoint = load();
      for (int repeat = 0; repeat < 2; ++repeat) {  // the second time the pieces are already verified
        const at::Tensor out = at::zeros({numel}, at::kFloat);
        checkpoint.read_range("w", "parameter", offset, numel, out);
        EXPECT_TRUE(at::equal(out, values(numel, 100 + static_cast<double>(offset)))) << offset << " " << numel;
      }
    }
  }
}

TEST_F(SaveLoad, KeepsShapesDtypesAndScalars) {
  save("step1", 1);
  LoadedCheckpoint checkpoint = load("step1");
  EXPECT_EQ(checkpoint.scalars(), scalars());
  EXPECT_EQ(checkpoint.manifest().world_size, 1);
  EXPECT_EQ(checkpoint.tensor("w", "exp_avg").dtype, storage::DType::kBF16);
  EXPECT_EQ(checkpoint.tensor("w", "parameter").shape, (std::vector<int64_t>{3, 5}));
  EXPECT_TRUE(checkpoint.tensor("scale", "parameter").shape.empty());
  EXPECT_EQ(checkpoint.tensor("none", "parameter").shape, (std::vector<int64_t>{0, 4}));
  checkpoint.read_range("none", "parameter", 0, 0, at::empty({0}, at::kFloat));
  const at::Tensor moments = at::empty({15}, at::kBFloat16);
  checkpoint.read_range("w", "exp_avg", 0, 15, moments);
  EXPECT_TRUE(at::equal(moments, values(15, -1, at::kBFloat16)));
  EXPECT_TRUE(checkpoint.contains("scale", "parameter"));
  EXPECT_FALSE(checkpoint.contains("scale", "exp_avg"));
}

TEST_F(SaveLoad, LeavesNothingBesideTheCheckpoint) {
  save("step1", 1);
  save("step1", 2);
  EXPECT_EQ(directory_.names(), (std::vector<std::string>{"latest", "step1"}));
  EXPECT_EQ(directory_.names("step1"), (std::vector<std::string>{"manifest.json", "rank_00000.safetensors"}));
  EXPECT_EQ(version(), 2);
}

TEST_F(SaveLoad, LargePiecesAreReadInChunks) {
  const int64_t numel = (int64_t{5} << 20) + 3;  // over two chunks of 4 MiB each, odd
  save_shards(options("big"), {{"w", "master", {numel}, 0, values(numel, 0, at::kInt)}}, {});
  for (const int64_t offset : {int64_t{0}, int64_t{1}, int64_t{1} << 20, (int64_t{3} << 20) - 1, numel - 1}) {
    const int64_t count = std::min<int64_t>(numel - offset, (int64_t{2} << 20) + 5);
    const at::Tensor out = at::empty({count}, at::kInt);
    load().read_range("w", "master", offset, count, out);
    EXPECT_TRUE(at::equal(out, values(count, static_cast<double>(offset), at::kInt))) << offset;
  }
}

TEST_F(SaveLoad, LatestMovesOnlyWhenAsked) {
  save("a", 1);
  SaveOptions quiet = options("b");
  quiet.save_latest = false;
  save_shards(quiet, records(2), scalars());
  EXPECT_EQ(version(), 1);
  EXPECT_EQ(version("b"), 2);
  EXPECT_EQ(list_tags(directory_.path()), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(latest_tag(directory_.path()), "a");
}

TEST_F(SaveLoad, MissingCheckpointListsTheTags) {
  expect_error<InvalidArgument>("does not exist", [&] { (void)load_shards(path("none")); });
  expect_error<InvalidArgument>("holds no checkpoint", [&] { (void)load(); });
  save("global_step10", 1);
  save("global_step20", 1);
  expect_error<InvalidArgument>("'global_step10', 'global_step20'; the nearest is 'global_step20'",
                                [&] { (void)load("globl_step20"); });
  fs::remove(path("latest"));
  expect_error<InvalidArgument>("no file 'latest' and no tag given; the tags that exist are 'global_step10'",
                                [&] { (void)load(); });
  storage::write_file_atomically(path("latest"), "gone\n");
  expect_error<InvalidArgument>("no checkpoint 'gone' (which 'latest' names)", [&] { (void)load(); });
  storage::write_file_atomically(path("latest"), "../etc");
  expect_error<InvalidArgument>("expected the name of a checkpoint", [&] { (void)load(); });
  storage::write_file_atomically(path("latest"), "global_step10\n");
  EXPECT_EQ(version(), 1);
}

TEST_F(SaveLoad, RejectsBadTags) {
  for (const std::string tag : {"", ".", "..", "a/b", ".hidden", "latest", "a\nb"}) {
    EXPECT_THROW(save(tag, 1), InvalidArgument) << tag;
    EXPECT_THROW((void)load(tag), InvalidArgument) << tag;
  }
  EXPECT_THROW(save(std::string(201, 'a'), 1), InvalidArgument);
}

TEST_F(SaveLoad, RejectsBadRecordsAndLeavesNothing) {
  const at::Tensor four = values(4, 0);
  const std::vector<std::pair<std::string, std::vector<ShardTensorRecord>>> cases = {
      {"expected one that starts at 0", {{"w", "p", {8}, 4, four}}},
      {"some rank's piece is missing", {{"w", "p", {8}, 0, four}}},
      {"must not overlap", {{"w", "p", {8}, 0, four}, {"w", "p", {8}, 3, four}}},
      {"expected a range within", {{"w", "p", {8}, 5, four}}},
      {"expected a range within", {{"w", "p", {8}, -1, four}}},
      {"expected a range within", {{"w", "p", {8}, INT64_MAX, four}}},
      {"a dimension is negative", {{"w", "p", {-4}, 0, four}}},
      {"a dimension is negative", {{"w", "p", {INT64_MAX, 4}, 0, four}}},
      {"disagree", {{"w", "p", {8}, 0, four}, {"w", "p", {2, 4}, 4, four}}},
      {"disagree", {{"w", "p", {8}, 0, four}, {"w", "p", {8}, 4, values(4, 0, at::kDouble)}}},
      {"duplicate tensor", {{"w", "p", {4}, 0, four}, {"w", "p", {4}, 0, four}}},
      {"expected a name and a kind", {{"", "p", {4}, 0, four}}},
      {"expected a name and a kind", {{"w", "", {4}, 0, four}}},
      {"1-D contiguous CPU", {{"w", "p", {4}, 0, at::Tensor()}}},
      {"1-D contiguous CPU", {{"w", "p", {4}, 0, four.view({2, 2})}}},
      {"1-D contiguous CPU", {{"w", "p", {2}, 0, four.slice(0, 0, 4, 2)}}},
      {"dtype: got ComplexFloat", {{"w", "p", {4}, 0, at::zeros({4}, at::kComplexFloat)}}},
      {"UTF-8", {{"\xff", "p", {4}, 0, four}}},
  };
  save("good", 1);
  for (const auto& [part, bad] : cases) {
    expect_error<InvalidArgument>(part, [&, &bad = bad] { save_shards(options("good"), bad, {}); });
    EXPECT_EQ(directory_.names(), (std::vector<std::string>{"good", "latest"})) << part;
    EXPECT_EQ(version(), 1);
  }
}

TEST_F(SaveLoad, RejectsBadOptions) {
  SaveOptions bad = options("a");
  bad.world_size = 2;  // without a group
  EXPECT_THROW(save_shards(bad, {}, {}), InvalidArgument);
  bad.world_size = 1;
  bad.rank = 1;
  EXPECT_THROW(save_shards(bad, {}, {}), InvalidArgument);
  bad.rank = 0;
  bad.directory = "";
  EXPECT_THROW(save_shards(bad, {}, {}), InvalidArgument);
}

TEST_F(SaveLoad, RejectsBadReads) {
  save("a", 1);
  LoadedCheckpoint checkpoint = load();
  const at::Tensor out = at::empty({4}, at::kFloat);
  expect_error<InvalidArgument>("the nearest name is 'scale'",
                                [&] { checkpoint.read_range("scal", "parameter", 0, 4, out); });
  expect_error<InvalidArgument>("no 'momentum' of any", [&] { checkpoint.read_range("w", "momentum", 0, 4, out); });
  for (const int64_t offset : {int64_t{-1}, int64_t{12}, INT64_MAX}) {
    expect_error<InvalidArgument>("expected a range within",
                                  [&] { checkpoint.read_range("w", "parameter", offset, 4, out); });
  }
  expect_error<InvalidArgument>("got 4 elements, expected 3",
                                [&] { checkpoint.read_range("w", "parameter", 0, 3, out); });
  expect_error<InvalidArgument>("which is stored", [&] { checkpoint.read_range("w", "exp_avg", 0, 4, out); });
  expect_error<InvalidArgument>("1-D contiguous", [&] {
    checkpoint.read_range("w", "parameter", 0, 4, out.view({2, 2}));
  });
}

TEST_F(SaveLoad, DamageIsNamedWithBothChecksums) {
  save("a", 1);
  const std::string file = path("a/rank_00000.safetensors");
  std::string bytes = storage::read_file(file, 1 << 20);
  bytes.back() ^= 1;  // the last value of the 16-bit moments
  storage::write_file_atomically(file, bytes);
  LoadedCheckpoint checkpoint = load();
  EXPECT_NO_THROW(checkpoint.read_range("w", "parameter", 0, 15, at::empty({15}, at::kFloat)));
  const at::Tensor one = at::empty({1}, at::kBFloat16);
  for (const std::string part : {"rank_00000.safetensors", "exp_avg/w@0", "got xxh3:", "expected xxh3:"}) {
    expect_error<InvalidArgument>(part, [&] { checkpoint.read_range("w", "exp_avg", 0, 1, one); });
  }
  expect_error<InvalidArgument>("the file is damaged", [&] { checkpoint.verify(); });
}

TEST_F(SaveLoad, MissingOrShortFilesAreFoundWhenOpening) {
  save("a", 1);
  const std::string file = path("a/rank_00000.safetensors");
  const auto size = fs::file_size(file);
  fs::resize_file(file, size - 1);
  expect_error<InvalidArgument>("bytes, expected " + std::to_string(size), [&] { (void)load(); });
  fs::remove(file);
  expect_error<SystemError>("rank_00000.safetensors", [&] { (void)load(); });
}

TEST_F(SaveLoad, SwappedFileOfOtherTensorsIsAnError) {
  save("a", 1);
  save_shards(options("b"), {{"v", "parameter", {4}, 0, values(4, 0)}}, {});
  const std::string file = path("a/rank_00000.safetensors");
  std::string other = storage::read_file(path("b/rank_00000.safetensors"), 1 << 20);
  const auto size = fs::file_size(file);
  ASSERT_LE(other.size(), size);
  storage::write_file_atomically(file, other + std::string(size - other.size(), '\0'));
  EXPECT_THROW(load("a").verify(), InvalidArgument);
}

TEST_F(SaveLoad, FullDiskLeavesThePreviousCheckpoint) {
  save("a", 1);
  const std::string staging = storage::AtomicDirectory::staging_path_of(path("a"));
  for (const std::string name : {"rank_00000.safetensors", "rank_00000.json", "manifest.json"}) {
    expect_error<SystemError>("No space left", [&] {
      save("a", 2, [&](std::string_view stage) {
        if (stage == "prepared") {
          fs::create_symlink("/dev/full", staging + "/" + name + std::string(storage::kPartialSuffix));
        }
      });
    });
    EXPECT_EQ(version(), 1) << name;
    EXPECT_EQ(directory_.names(), (std::vector<std::string>{"a", "latest"})) << name;
  }
  fs::create_symlink("/dev/full", path("latest") + std::string(storage::kPartialSuffix));
  save("b", 3);  // a stale file of a crashed writer is removed first
  EXPECT_EQ(version(), 3);
}

const std::vector<std::string> kStages = {"prepared", "shard written", "manifest written", "synced",
                                          "renamed",  "removed",       "latest written"};

TEST_F(SaveLoad, DeathAtAnyStageLeavesALoadableCheckpoint) {
  for (const std::string tag : {"old", "new"}) {
    for (const std::string& stage : kStages) {
      save("old", 1);
      fs::remove_all(path("new"));
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        save(tag, 2, [&](std::string_view reached) {
          if (reached == stage) ::_exit(7);
        });
        ::_exit(0);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status));
      const bool committed = stage == "renamed" || stage == "removed" || stage == "latest written";
      const bool latest_moved = tag == "old" ? committed : stage == "latest written" || WEXITSTATUS(status) == 0;
      EXPECT_EQ(version(), latest_moved ? 2 : 1) << tag << " " << stage;
      if (tag == "new" && committed) {
        EXPECT_EQ(version("new"), 2);
      }

      save("old", 3);
      EXPECT_EQ(version(), 3);
      for (const std::string& name : directory_.names()) EXPECT_NE(name[0], '.') << name << " " << stage;
    }
  }
}

TEST_F(SaveLoad, ErrorAtAnyStageLeavesALoadableCheckpoint) {
  std::set<std::string> seen;
  for (const std::string& stage : kStages) {
    save("a", 1);
    try {
      save("a", 2, [&](std::string_view reached) {
        seen.emplace(reached);
        if (reached == stage) throw std::runtime_error("stop");
      });
      ADD_FAILURE() << "no exception at " << stage;
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "stop");
    }
    const bool committed = stage == "renamed" || stage == "removed" || stage == "latest written";
    EXPECT_EQ(version(), committed ? 2 : 1) << stage;
  }
  EXPECT_EQ(seen, std::set<std::string>(kStages.begin(), kStages.end()));
}

}  // namespace
}  // namespace hydrofoil::checkpoint
