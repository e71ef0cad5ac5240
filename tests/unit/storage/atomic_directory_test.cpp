#include "hydrofoil/storage/atomic_directory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/file.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::storage {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kStages = {"prepared", "synced", "moved aside", "renamed", "removed"};

void write_version(const std::string& final_path, const std::string& content, AtomicDirectoryOptions options = {}) {
  AtomicDirectory directory(final_path, std::move(options));
  write_file_atomically(directory.staging_path() + "/a", content);
  fs::create_directory(directory.staging_path() + "/deep");
  write_file_atomically(directory.staging_path() + "/deep/b", content);
  directory.commit();
}

std::string version(const std::string& final_path) {
  const std::string committed = AtomicDirectory::committed_path(final_path);
  const std::string content = read_file(committed + "/a", 100);
  EXPECT_EQ(read_file(committed + "/deep/b", 100), content);
  return content;
}

// Both ways of replacing: one exchange, or two renames.
class AtomicDirectoryTest : public testing::TestWithParam<bool> {
 protected:
  AtomicDirectoryOptions options(StageObserver on_stage = {}) const { return {std::move(on_stage), GetParam()}; }
  std::string final_path() const { return directory_.path() + "/runs/tag"; }

  TemporaryDirectory directory_;
};

TEST_P(AtomicDirectoryTest, AppearsWholeAndReplaces) {
  write_version(final_path(), "1", options());
  EXPECT_EQ(version(final_path()), "1");
  write_version(final_path(), "2", options());
  EXPECT_EQ(version(final_path()), "2");
  EXPECT_EQ(directory_.names("runs"), std::vector<std::string>{"tag"});
}

TEST_P(AtomicDirectoryTest, UncommittedLeavesTheOld) {
  write_version(final_path(), "1", options());
  {
    AtomicDirectory abandoned(final_path(), options());
    write_file_atomically(abandoned.staging_path() + "/a", "2");
  }
  EXPECT_EQ(version(final_path()), "1");
  EXPECT_EQ(directory_.names("runs"), std::vector<std::string>{"tag"});
}

TEST_P(AtomicDirectoryTest, CommitsOnce) {
  AtomicDirectory directory(final_path(), options());
  directory.commit();
  EXPECT_THROW(directory.commit(), InvalidArgument);
}

TEST_P(AtomicDirectoryTest, ErrorAtAnyStageLeavesOldOrNew) {
  for (const std::string& stage : kStages) {
    write_version(final_path(), "old", options());
    try {
      write_version(final_path(), "new", options([&](std::string_view reached) {
                      if (reached == stage) throw std::runtime_error("stop");
                    }));
    } catch (const std::runtime_error&) {
    }
    const std::string content = version(final_path());
    EXPECT_TRUE(content == "old" || content == "new") << stage << ": " << content;
    const bool before_the_rename = stage == "prepared" || stage == "synced";
    EXPECT_TRUE(!before_the_rename || content == "old") << stage;
  }
}

TEST_P(AtomicDirectoryTest, DeathAtAnyStageLeavesOldOrNew) {
  for (const std::string& stage : kStages) {
    write_version(final_path(), "old", options());
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      write_version(final_path(), "new", options([&](std::string_view reached) {
                      if (reached == stage) ::_exit(7);
                    }));
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    const bool seen = !GetParam() || stage != "moved aside";
    EXPECT_EQ(WEXITSTATUS(status), seen ? 7 : 0) << stage;
    const std::string content = version(final_path());
    EXPECT_EQ(content, stage == "renamed" || stage == "removed" || !seen ? "new" : "old") << stage;

    write_version(final_path(), "next", options());
    EXPECT_EQ(version(final_path()), "next");
    EXPECT_EQ(directory_.names("runs"), std::vector<std::string>{"tag"}) << stage;
  }
}

INSTANTIATE_TEST_SUITE_P(ExchangeOrTwoRenames, AtomicDirectoryTest, testing::Bool());

TEST(AtomicDirectory, RejectsAPathWithoutName) {
  EXPECT_THROW(AtomicDirectory(""), InvalidArgument);
  EXPECT_THROW(AtomicDirectory("/tmp/"), InvalidArgument);
}

TEST(AtomicDirectory, NamesThePathThatCannotBeMade) {
  const TemporaryDirectory directory;
  write_file_atomically(directory.path() + "/file", "x");
  try {
    AtomicDirectory inside(directory.path() + "/file/tag");
    FAIL() << "no exception";
  } catch (const SystemError& error) {
    EXPECT_NE(std::string(error.what()).find(directory.path() + "/file"), std::string::npos) << error.what();
  }
}

TEST(RepairDirectory, RemovesWhatCrashedWritersLeft) {
  const TemporaryDirectory directory;
  const std::string root = directory.path() + "/";
  fs::create_directories(root + ".a.hydrofoil-staging/deep");
  fs::create_directories(root + ".b.hydrofoil-old");
  fs::create_directories(root + ".c.hydrofoil-old");
  fs::create_directories(root + "c");
  fs::create_directories(root + ".hydrofoil-old");
  fs::create_directories(root + ".mine");
  write_file_atomically(root + "latest", "c");
  write_file_atomically(root + "x", "");
  fs::rename(root + "x", root + "latest" + std::string(kPartialSuffix));
  repair_directory(directory.path());
  EXPECT_EQ(directory.names(), (std::vector<std::string>{".hydrofoil-old", ".mine", "b", "c", "latest"}));
  EXPECT_NO_THROW(repair_directory(root + "none"));
}

TEST(WriteFileAtomically, FullDiskLeavesTheOldFile) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/latest";
  write_file_atomically(path, "old");
  fs::create_symlink("/dev/full", path + std::string(kPartialSuffix));
  EXPECT_THROW(write_file_atomically(path, "new"), SystemError);
  EXPECT_EQ(read_file(path, 10), "old");
  EXPECT_EQ(directory.names(), std::vector<std::string>{"latest"});
}

TEST(ReadFile, RefusesMoreThanItsLimit) {
  const TemporaryDirectory directory;
  write_file_atomically(directory.path() + "/a", "1234");
  EXPECT_EQ(read_file(directory.path() + "/a", 4), "1234");
  EXPECT_THROW((void)read_file(directory.path() + "/a", 3), InvalidArgument);
}

TEST(ParentDirectory, OfEveryForm) {
  EXPECT_EQ(parent_directory("a"), ".");
  EXPECT_EQ(parent_directory("/a"), "/");
  EXPECT_EQ(parent_directory("a/b/c"), "a/b");
}

}  // namespace
}  // namespace hydrofoil::storage
