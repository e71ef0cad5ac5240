#include "hydrofoil/comm/detail/ballot.h"

#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm::detail {

Ballot::Ballot(BallotOptions options) : options_(std::move(options)) {}
Ballot::~Ballot() = default;

std::vector<std::string> Ballot::gather(const std::string& step, const std::string& value) const {
  c10d::Store& store = *options_.store;
  const auto key = [&](int rank) { return concat(options_.prefix, "/", step, "/", rank); };
  std::vector<std::string> keys;
  for (int rank = 0; rank < options_.size; ++rank) keys.push_back(key(rank));
  store.set(key(options_.rank), std::vector<uint8_t>(value.begin(), value.end()));
  try {
    store.wait(keys, options_.timeout);
  } catch (const std::exception& error) {
    std::string missing;
    for (int rank = 0; rank < options_.size; ++rank) {
      if (!store.check({key(rank)})) missing += concat(missing.empty() ? "" : ", ", rank);
    }
    throw CommError(concat("[comm] connecting group ", options_.group, " on rank ", options_.rank, ": not here after ",
                           options_.timeout.count(), " ms: ranks ", missing));
  }
  std::vector<std::string> values;
  for (const auto& k : keys) {
    const std::vector<uint8_t> bytes = store.get(k);
    values.emplace_back(bytes.begin(), bytes.end());
  }
  return values;
}

std::string Ballot::vote(const std::string& step, const std::string& problem) const {
  std::string problems;
  const std::vector<std::string> votes = gather(step, problem);
  for (size_t rank = 0; rank < votes.size(); ++rank) {
    if (!votes[rank].empty()) problems += concat(problems.empty() ? "" : "; ", "rank ", rank, ": ", votes[rank]);
  }
  return problems;
}

std::string next_ballot_prefix(c10d::Store& store, const std::string& group, int rank) {
  const std::string base = "hydrofoil/" + group;
  const int64_t generation = store.add(concat(base, "/calls/", rank), 1);
  return concat(base, "/", generation);
}

}  // namespace hydrofoil::comm::detail
