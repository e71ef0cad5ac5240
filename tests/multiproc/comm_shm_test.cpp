#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <set>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/connect.h"
#include "tests/support/collectives.h"
#include "tests/support/store_backend.h"

namespace hydrofoil::comm {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

// Ranks as processes that share a folder with a store and a file per rank for what it has to say.
class Ranks {
 public:
  Ranks() {
    std::string pattern = (fs::temp_directory_path() / "hydrofoil-test-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~Ranks() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  using Body = std::function<void(int rank)>;

  // Runs body(rank) in a process each. Says what each rank threw, or "" where it returned; "signal N" where it was
  // killed.
  std::vector<std::string> run(int size, const Body& body) {
    std::vector<pid_t> children;
    for (int rank = 0; rank < size; ++rank) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(60);  // no process outlives the test
        std::string text;
        try {
          body(rank);
          if (::testing::Test::HasFailure()) text = "expectations failed";
        } catch (const std::exception& error) {
          text = error.what();
        }
        std::ofstream(said(rank)) << text;
        std::cout.flush();
        ::_exit(0);
      }
      children.push_back(child);
    }
    std::vector<std::string> results;
    for (int rank = 0; rank < size; ++rank) {
      int status = 0;
      ::waitpid(children[static_cast<size_t>(rank)], &status, 0);
      std::ifstream in(said(rank));
      std::string text(std::istreambuf_iterator<char>(in), {});
      if (WIFSIGNALED(status)) text = "signal " + std::to_string(WTERMSIG(status));
      results.push_back(text);
    }
    return results;
  }

  ConnectOptions options(int rank, int size, const std::string& backend = "shm") const {
    constexpr int kNeverRemoved = -1;  // a store that knows its ranks removes the file under one that connects again
    return {.rank = rank,
            .size = size,
            .store = c10::make_intrusive<c10d::FileStore>((folder_ / "store").string(), kNeverRemoved),
            .backend = backend,
            .group = {.timeout = seconds(30)}};
  }

 private:
  fs::path said(int rank) const { return folder_ / ("rank" + std::to_string(rank)); }
  fs::path folder_;
};

std::set<std::string> shared_memory_files() {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator("/dev/shm")) names.insert(entry.path().string());
  return names;
}

size_t open_files() {
  const fs::directory_iterator files("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

size_t shared_mappings() {
  std::ifstream maps("/proc/self/maps");
  size_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("hydrofoil-comm") != std::string::npos;
  return count;
}

TEST(ShmProcesses, CollectivesEqualTheirDefinition) {
  for (const int size : {2, 3}) {
    Ranks ranks;
    const auto results = ranks.run(size, [&](int rank) {
      const auto groups = connect(ranks.options(rank, size, "auto"));
      EXPECT_EQ(groups[0].backend_name(), "shm");
      for (const int64_t numel : {0, 1, 7, 150'001}) {
        testing::check_reductions(groups[0], numel, at::kBFloat16);
        testing::check_moves(groups[1], numel, at::kFloat);
      }
    });
    for (const auto& result : results) EXPECT_EQ(result, "");
  }
}

TEST(ShmProcesses, KilledPeerIsNamedWithinSeconds) {
  Ranks ranks;
  const auto results = ranks.run(3, [&](int rank) {
    const auto groups = connect(ranks.options(rank, 3));
    at::Tensor buffer = at::zeros({1000});
    for (int i = 0; i < 5; ++i) groups[0].all_reduce(buffer, ReduceOp::kSum).wait();
    if (rank == 1) {
      // A child that inherits the sockets must not hide the end.
      if (::fork() == 0) {
        std::this_thread::sleep_for(seconds(8));
        ::_exit(0);
      }
      ::kill(::getpid(), SIGKILL);
    }
    const auto start = steady_clock::now();
    try {
      groups[0].all_reduce(buffer, ReduceOp::kSum, {.unit = "layers.2"}).wait();
      FAIL() << "no error";
    } catch (const CommError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("all_reduce of unit layers.2"), std::string::npos) << text;
      EXPECT_NE(text.find("rank 1 has died"), std::string::npos) << text;
    }
    EXPECT_LT(steady_clock::now() - start, seconds(5));
  });
  EXPECT_EQ(results, (std::vector<std::string>{"", "signal 9", ""}));
}

TEST(ShmProcesses, NothingIsLeftBehind) {
  const auto before = shared_memory_files();
  Ranks ranks;
  const auto results = ranks.run(2, [&](int rank) {
    { connect(ranks.options(rank, 2))[0].barrier(); }  // opens what the library opens once
    const size_t files = open_files();
    for (int i = 0; i < 5; ++i) {
      const auto groups = connect(ranks.options(rank, 2));
      EXPECT_GT(open_files(), files);
      EXPECT_EQ(shared_mappings(), 3U);  // the own memory, the peer's, and of that the heap, which is read-only
      groups[1].barrier();
    }
    EXPECT_EQ(open_files(), files);
    EXPECT_EQ(shared_mappings(), 0U);
  });
  EXPECT_EQ(results, (std::vector<std::string>{"", ""}));
  Ranks killed;
  const auto signals = killed.run(2, [&](int rank) {
    const auto groups = connect(killed.options(rank, 2));
    groups[0].barrier();
    ::kill(::getpid(), SIGKILL);
  });
  EXPECT_EQ(signals, (std::vector<std::string>{"signal 9", "signal 9"}));
  EXPECT_EQ(shared_memory_files(), before);
}

// A network namespace of its own is what another host looks like: its abstract sockets cannot be reached.
bool move_to_another_host() { return ::unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWNS) == 0; }

bool can_unshare() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(move_to_another_host() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(ShmProcesses, RanksOfTwoHostsUseC10d) {
  if (!can_unshare()) GTEST_SKIP() << "this machine does not allow unshare";
  Ranks ranks;
  const auto results = ranks.run(3, [&](int rank) {
    EXPECT_TRUE(rank != 2 || move_to_another_host());
    ConnectOptions options = ranks.options(rank, 3, "auto");
    std::vector<c10::intrusive_ptr<c10d::ProcessGroup>> kept;  // the registry does not hold them
    for (const std::string name : {"0", "1"}) {
      kept.push_back(testing::register_store_group(
          name, c10::make_intrusive<c10d::PrefixStore>("pg" + name, options.store), rank, 3));
      options.process_group_names.push_back(name);
    }
    {
      const auto groups = connect(options);
      EXPECT_EQ(groups[0].backend_name(), "c10d:store");
      testing::check_reductions(groups[0], 33, at::kBFloat16);
      testing::check_moves(groups[1], 33, at::kInt);
    }
    c10d::unregister_all_process_groups();
  });
  for (const auto& result : results) EXPECT_EQ(result, "");
}

TEST(ShmProcesses, ForcedShmOverTwoHostsIsAnErrorWithTheReason) {
  if (!can_unshare()) GTEST_SKIP() << "this machine does not allow unshare";
  Ranks ranks;
  const auto results = ranks.run(2, [&](int rank) {
    EXPECT_TRUE(rank != 1 || move_to_another_host());
    static_cast<void>(connect(ranks.options(rank, 2, "shm")));
  });
  for (const auto& result : results) {
    EXPECT_NE(result.find("backend shm is not possible for group world: rank 1: cannot reach rank 0"),
              std::string::npos)
        << result;
  }
}

TEST(ShmProcesses, DifferentOptionsAreNamedOnEveryRank) {
  Ranks ranks;
  const auto results = ranks.run(2, [&](int rank) {
    ConnectOptions options = ranks.options(rank, 2);
    options.num_channels = 2 + rank;
    static_cast<void>(connect(options));
  });
  EXPECT_NE(results[0].find("but rank 1 has backend shm, device cpu, 3 channels"), std::string::npos) << results[0];
  EXPECT_NE(results[1].find("but rank 0 has backend shm, device cpu, 2 channels"), std::string::npos) << results[1];
}

TEST(ShmProcesses, RankThatNeverConnectsIsNamed) {
  Ranks ranks;
  const auto results = ranks.run(1, [&](int rank) {
    ConnectOptions options = ranks.options(rank, 2);
    options.group.timeout = milliseconds(500);
    static_cast<void>(connect(options));
  });
  EXPECT_NE(results[0].find("not here after 500 ms: ranks 1"), std::string::npos) << results[0];
}

}  // namespace
}  // namespace hydrofoil::comm
