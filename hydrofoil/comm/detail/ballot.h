#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <string>
#include <vector>

namespace c10d {
class Store;
}

namespace hydrofoil::comm::detail {

struct BallotOptions {
  c10::intrusive_ptr<c10d::Store> store;  // shared by the ranks
  std::string prefix;                     // of the keys; no other ballot of the store has it
  std::string group;                      // name in errors
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds timeout{0};  // of each step
};

// One value of every rank, by a store: how ranks that are about to connect agree.
class Ballot {
 public:
  explicit Ballot(BallotOptions options);
  ~Ballot();
  Ballot(const Ballot&) = delete;
  Ballot& operator=(const Ballot&) = delete;

  // The values of all ranks, in rank order. Each `step` is taken once. Throws CommError with the ranks that are not
  // here in time.
  [[nodiscard]] std::vector<std::string> gather(const std::string& step, const std::string& value) const;

  // Every rank says why it cannot go on, or nothing. Returns all that was said, with the ranks.
  [[nodiscard]] std::string vote(const std::string& step, const std::string& problem) const;

  [[nodiscard]] const BallotOptions& options() const { return options_; }

 private:
  BallotOptions options_;
};

// A prefix that belongs to one connection: all ranks count their connections of `group`.
[[nodiscard]] std::string next_ballot_prefix(c10d::Store& store, const std::string& group, int rank);

}  // namespace hydrofoil::comm::detail
