#include "hydrofoil/comm/c10d/store_board.h"

#include <charconv>
#include <mutex>
#include <sstream>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "hydrofoil/base/log.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm {
namespace {

constexpr size_t kMaxRecordBytes = 64 * 1024;
constexpr size_t kMaxTextBytes = 2048;

template <typename T>
bool parse_number(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\0') c = ' ';
  }
  return text.substr(0, kMaxTextBytes);
}

}  // namespace

std::string encode_status(const RankStatus& status) {
  std::ostringstream out;
  for (const uint64_t issued : status.issued) out << "issued\n" << issued << "\n";
  if (status.blocked) {
    out << "blocked\n"
        << status.blocked->channel << "\n"
        << status.blocked->sequence << "\n"
        << one_line(status.blocked->what) << "\n";
  }
  if (!status.failure.empty()) out << "failure\n" << one_line(status.failure) << "\n";
  return out.str();
}

std::optional<RankStatus> decode_status(const std::string& text) {
  if (text.size() > kMaxRecordBytes) return std::nullopt;
  std::istringstream in(text);
  RankStatus status;
  std::string key;
  while (std::getline(in, key)) {
    std::string value;
    if (!std::getline(in, value)) return std::nullopt;
    if (key == "issued") {
      uint64_t issued = 0;
      if (!parse_number(value, issued)) return std::nullopt;
      status.issued.push_back(issued);
    } else if (key == "blocked") {
      RankStatus::Wait wait;
      std::string sequence;
      if (!parse_number(value, wait.channel) || wait.channel < 0) return std::nullopt;
      if (!std::getline(in, sequence) || !parse_number(sequence, wait.sequence)) return std::nullopt;
      if (!std::getline(in, wait.what)) return std::nullopt;
      status.blocked = std::move(wait);
    } else if (key == "failure") {
      status.failure = value;
    } else {
      return std::nullopt;
    }
  }
  return status;
}

struct StoreBoard::State {
  c10::intrusive_ptr<c10d::Store> store;
  std::string prefix;
  int rank;
  int size;

  std::mutex mutex;  // of what follows; never held during a round trip
  RankStatus own;
  int callers = 0;
  bool unreachable = false;

  std::mutex order;  // records leave in the order of their making

  std::string key(int of_rank) const { return detail::concat(prefix, "/", of_rank); }

  // Runs a round trip; the first that fails is the last.
  template <typename Body>
  void talk(const Body& body) {
    {
      const std::lock_guard lock(mutex);
      if (unreachable) return;
    }
    try {
      body();
    } catch (const std::exception& error) {
      const std::lock_guard lock(mutex);
      unreachable = true;
      log_warning("comm: the store that explains hangs cannot be reached any more: ", one_line(error.what()));
    }
  }

  void write() {
    const std::lock_guard ordered(order);
    std::string text;
    {
      const std::lock_guard lock(mutex);
      text = encode_status(own);
    }
    talk([&] { store->set(key(rank), std::vector<uint8_t>(text.begin(), text.end())); });
  }
};

StoreBoard::StoreBoard(c10::intrusive_ptr<c10d::Store> store, std::string prefix, int rank, int size, int num_channels)
    : state_(new State{.store = std::move(store), .prefix = std::move(prefix), .rank = rank, .size = size}) {
  state_->own.issued.resize(static_cast<size_t>(num_channels));
}

StoreBoard::~StoreBoard() = default;

int StoreBoard::rank() const { return state_->rank; }
int StoreBoard::size() const { return state_->size; }

void StoreBoard::issue(int channel, uint64_t sequence) {
  const std::lock_guard lock(state_->mutex);
  state_->own.issued[static_cast<size_t>(channel)] = sequence;
}

void StoreBoard::block(const RankStatus::Wait& wait) {
  {
    const std::lock_guard lock(state_->mutex);
    ++state_->callers;
    state_->own.blocked.reset();
    if (state_->callers == 1) state_->own.blocked = wait;
  }
  state_->write();
}

void StoreBoard::unblock() {
  {
    const std::lock_guard lock(state_->mutex);
    --state_->callers;
    state_->own.blocked.reset();
  }
  state_->write();
}

void StoreBoard::post() { state_->write(); }

void StoreBoard::fail(const std::string& reason) {
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->own.failure.empty()) return;
    state_->own.failure = reason;
  }
  state_->write();
}

std::optional<RankStatus> StoreBoard::read(int rank) {
  if (rank == state_->rank) {
    const std::lock_guard lock(state_->mutex);
    return state_->own;
  }
  std::optional<RankStatus> status;
  state_->talk([&] {
    const std::string key = state_->key(rank);
    if (!state_->store->check({key})) return;
    const std::vector<uint8_t> bytes = state_->store->get(key);
    status = decode_status(std::string(bytes.begin(), bytes.end()));
  });
  return status;
}

}  // namespace hydrofoil::comm
