#include "hydrofoil/comm/mpi/mpi_groups.h"

#include <ATen/ops/empty.h>
#include <mpi.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/c10d/store_board.h"
#include "hydrofoil/comm/detail/dtype.h"
#include "hydrofoil/comm/detail/explain.h"
#include "hydrofoil/comm/detail/reduce.h"
#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/comm/mpi/mpi_process.h"

namespace hydrofoil::comm {
namespace {

using detail::concat;
using detail::MpiProcess;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr const char* kFunction = "comm::make_mpi_groups";
constexpr milliseconds kLookEvery{1000};  // how often the board is asked while an operation takes long
constexpr microseconds kShortestSleep{5};
constexpr microseconds kLongestSleep{100};
constexpr int64_t kPieceNumel = int64_t{4} << 20;  // bounds the temporary buffers of an all_reduce
constexpr int64_t kDirectBytes = 4096;             // up to here one step by everybody beats two steps by parts
constexpr int kMessageTag = 0;
constexpr int kPieceTag = 1;  // apart from messages, which may still be under way

std::string error_text(int code) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  return {text, static_cast<size_t>(length)};
}

// Polls without holding the CPU until all requests are done; `look` runs between two tests and may throw.
void poll(std::vector<MPI_Request>& requests, std::vector<MPI_Status>& statuses, const std::function<void()>& look) {
  statuses.resize(requests.size());
  microseconds sleep = kShortestSleep;
  while (true) {
    int done = 0;
    int code = MPI_SUCCESS;
    {
      const auto guard = MpiProcess::instance().lock();
      code = MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, statuses.data());
    }
    if (code == MPI_ERR_IN_STATUS) {
      for (const auto& status : statuses) {
        if (status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING) code = status.MPI_ERROR;
      }
    }
    if (code != MPI_SUCCESS) throw CommError(error_text(code));
    if (done != 0) return;
    look();
    std::this_thread::sleep_for(sleep);
    sleep = std::min(2 * sleep, kLongestSleep);
  }
}

// One channel: a communicator of its own over all ranks.
class MpiBackend : public Backend {
 public:
  MpiBackend(MPI_Comm communicator, const MpiOptions& options, int channel)
      : communicator_(communicator), options_(options), channel_(channel) {}
  ~MpiBackend() override {
    // What has failed may have requests left, which a communicator must outlive.
    const auto guard = MpiProcess::instance().lock();
    if (!failed_ && MpiProcess::is_alive()) MPI_Comm_free(&communicator_);
  }
  MpiBackend(const MpiBackend&) = delete;
  MpiBackend& operator=(const MpiBackend&) = delete;

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  std::string name() const override { return "mpi"; }
  std::shared_ptr<StatusBoard> board() const override { return options_.board; }
  int channel() const override { return channel_; }
  void run(const Operation& operation, const CallControl& control) override;
  void leave(const std::string& reason) override {
    if (options_.board && !reason.empty()) options_.board->fail(reason);
  }

 private:
  void dispatch(const detail::Whereabouts& where);
  void all_reduce(const detail::Whereabouts& where);
  void reduce_scatter(const detail::Whereabouts& where);
  void broadcast(const detail::Whereabouts& where);
  void message(const detail::Whereabouts& where);
  void gather(const detail::Whereabouts& where, const at::Tensor& input, const at::Tensor& output);
  void exchange(const detail::Whereabouts& where, const at::Tensor& input, const at::Tensor& output);
  void swap_pieces(const detail::Whereabouts& where, const std::function<const char*(int)>& to,
                   const std::function<char*(int)>& from, int64_t bytes);
  void reduce(const detail::Whereabouts& where, const at::Tensor& slices, const at::Tensor& output) const;
  at::Tensor scratch(const at::Tensor& like, int64_t numel);

  // Starts one call of MPI and adds its request.
  template <typename Start>
  void start(std::vector<MPI_Request>& requests, const Start& call) {
    const auto guard = MpiProcess::instance().lock();
    requests.push_back(MPI_REQUEST_NULL);
    const int code = call(&requests.back());
    if (code != MPI_SUCCESS) throw CommError(error_text(code));
  }
  template <typename Start>
  void complete(const detail::Whereabouts& where, const Start& call) {
    std::vector<MPI_Request> requests;
    start(requests, call);
    finish(where, requests);
  }
  std::vector<MPI_Status> finish(const detail::Whereabouts& where, std::vector<MPI_Request>& requests);

  MPI_Comm communicator_;
  MpiOptions options_;
  int channel_;
  bool failed_ = false;
  std::vector<at::Tensor> buffers_;  // of the operation at hand
};

void MpiBackend::run(const Operation& operation, const CallControl& control) {
  const detail::Whereabouts where{.operation = operation,
                                  .control = control,
                                  .group = options_.group.name,
                                  .backend = name(),
                                  .rank = rank(),
                                  .size = size(),
                                  .channel = channel_,
                                  .board = options_.board.get()};
  buffers_ = {operation.input, operation.output};
  try {
    dispatch(where);
  } catch (const std::exception& error) {
    failed_ = true;
    MpiProcess::instance().abandon(std::exchange(buffers_, {}));
    const std::string text = error.what();
    if (text.rfind("[comm]", 0) == 0) throw;
    throw CommError(concat(detail::context(where), ": ", text));
  }
  buffers_.clear();
}

void MpiBackend::dispatch(const detail::Whereabouts& where) {
  const Operation& operation = where.operation;
  if (operation.info.signature != 0 && !is_point_to_point(operation.kind)) {
    detail::compare_operations(where, [&](const at::Tensor& mine) {
      const at::Tensor all = scratch(mine, mine.numel() * size());
      buffers_.push_back(mine);
      gather(where, mine, all);
      return all;
    });
  }
  if (operation.kind != OpKind::kBarrier && operation.numel() == 0) return;
  switch (operation.kind) {
    case OpKind::kAllReduce:
      return all_reduce(where);
    case OpKind::kReduceScatter:
      return reduce_scatter(where);
    case OpKind::kAllGather:
      return gather(where, operation.input, operation.output);
    case OpKind::kAllToAll:
      return exchange(where, operation.input, operation.output);
    case OpKind::kBroadcast:
      return broadcast(where);
    case OpKind::kBarrier:
      return complete(where, [&](MPI_Request* request) { return MPI_Ibarrier(communicator_, request); });
    case OpKind::kSend:
    case OpKind::kRecv:
      return message(where);
  }
}

// Rank r reduces slice r of all ranks; then all gather the slices. MPI's own sums would have another order, and no
// 16-bit floats.
void MpiBackend::all_reduce(const detail::Whereabouts& where) {
  const at::Tensor& buffer = where.operation.output;
  if (static_cast<int64_t>(buffer.nbytes()) <= kDirectBytes) {
    const at::Tensor all = scratch(buffer, buffer.numel() * size());
    gather(where, buffer, all);
    return reduce(where, all, buffer);
  }
  const int64_t largest = (std::min(kPieceNumel, buffer.numel()) + size() - 1) / size();
  const at::Tensor padded = scratch(buffer, largest * size());
  const at::Tensor slices = scratch(buffer, largest * size());
  const at::Tensor result = scratch(buffer, largest);
  for (int64_t begin = 0; begin < buffer.numel(); begin += kPieceNumel) {
    const at::Tensor piece = buffer.narrow(0, begin, std::min(kPieceNumel, buffer.numel() - begin));
    const int64_t slice = (piece.numel() + size() - 1) / size();
    const at::Tensor whole = padded.narrow(0, 0, slice * size());
    std::memcpy(whole.data_ptr(), piece.const_data_ptr(), piece.nbytes());
    std::memset(static_cast<char*>(whole.data_ptr()) + piece.nbytes(), 0, whole.nbytes() - piece.nbytes());
    exchange(where, whole, slices.narrow(0, 0, slice * size()));
    reduce(where, slices.narrow(0, 0, slice * size()), result.narrow(0, 0, slice));
    gather(where, result.narrow(0, 0, slice), whole);
    std::memcpy(piece.data_ptr(), whole.const_data_ptr(), piece.nbytes());
  }
}

void MpiBackend::reduce_scatter(const detail::Whereabouts& where) {
  const at::Tensor slices = scratch(where.operation.input, where.operation.input.numel());
  exchange(where, where.operation.input, slices);
  reduce(where, slices, where.operation.output);
}

void MpiBackend::broadcast(const detail::Whereabouts& where) {
  char* data = static_cast<char*>(where.operation.output.data_ptr());
  const auto bytes = static_cast<int64_t>(where.operation.output.nbytes());
  for (int64_t begin = 0; begin < bytes; begin += options_.max_message_bytes) {
    const auto count = static_cast<int>(std::min(options_.max_message_bytes, bytes - begin));
    complete(where, [&](MPI_Request* request) {
      return MPI_Ibcast(data + begin, count, MPI_BYTE, where.operation.peer, communicator_, request);
    });
  }
}

void MpiBackend::message(const detail::Whereabouts& where) {
  const bool sends = where.operation.kind == OpKind::kSend;
  const at::Tensor& buffer = sends ? where.operation.input : where.operation.output;
  char* data = static_cast<char*>(buffer.data_ptr());
  const auto bytes = static_cast<int64_t>(buffer.nbytes());
  const int peer = where.operation.peer;
  for (int64_t begin = 0; begin < bytes; begin += options_.max_message_bytes) {
    const auto count = static_cast<int>(std::min(options_.max_message_bytes, bytes - begin));
    std::vector<MPI_Request> requests;
    start(requests, [&](MPI_Request* request) {
      if (sends) return MPI_Isend(data + begin, count, MPI_BYTE, peer, kMessageTag, communicator_, request);
      return MPI_Irecv(data + begin, count, MPI_BYTE, peer, kMessageTag, communicator_, request);
    });
    const std::vector<MPI_Status> statuses = finish(where, requests);
    int received = count;
    if (!sends) MPI_Get_count(statuses.data(), MPI_BYTE, &received);
    if (received != count) {
      throw CommError(concat("rank ", peer, " sent ", received, " bytes, expected ", count));
    }
  }
}

void MpiBackend::gather(const detail::Whereabouts& where, const at::Tensor& input, const at::Tensor& output) {
  const char* in = static_cast<const char*>(input.const_data_ptr());
  char* out = static_cast<char*>(output.data_ptr());
  const auto bytes = static_cast<int64_t>(input.nbytes());
  char* own = out + rank() * bytes;
  if (bytes <= options_.max_message_bytes) {
    return complete(where, [&](MPI_Request* request) {
      return MPI_Iallgather(in == own ? MPI_IN_PLACE : in, static_cast<int>(bytes), MPI_BYTE, out,
                            static_cast<int>(bytes), MPI_BYTE, communicator_, request);
    });
  }
  if (in != own) std::memcpy(own, in, static_cast<size_t>(bytes));
  swap_pieces(
      where, [&](int) { return in; }, [&](int peer) { return out + peer * bytes; }, bytes);
}

void MpiBackend::exchange(const detail::Whereabouts& where, const at::Tensor& input, const at::Tensor& output) {
  const char* in = static_cast<const char*>(input.const_data_ptr());
  char* out = static_cast<char*>(output.data_ptr());
  const auto bytes = static_cast<int64_t>(input.nbytes()) / size();
  if (bytes <= options_.max_message_bytes) {
    return complete(where, [&](MPI_Request* request) {
      return MPI_Ialltoall(in, static_cast<int>(bytes), MPI_BYTE, out, static_cast<int>(bytes), MPI_BYTE, communicator_,
                           request);
    });
  }
  std::memcpy(out + rank() * bytes, in + rank() * bytes, static_cast<size_t>(bytes));
  swap_pieces(
      where, [&](int peer) { return in + peer * bytes; }, [&](int peer) { return out + peer * bytes; }, bytes);
}

// Slices that are too large for one call: `bytes` from to(peer) and into from(peer), for every peer.
void MpiBackend::swap_pieces(const detail::Whereabouts& where, const std::function<const char*(int)>& to,
                             const std::function<char*(int)>& from, int64_t bytes) {
  for (int64_t begin = 0; begin < bytes; begin += options_.max_message_bytes) {
    const auto count = static_cast<int>(std::min(options_.max_message_bytes, bytes - begin));
    std::vector<MPI_Request> requests;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      start(requests, [&](MPI_Request* request) {
        return MPI_Irecv(from(peer) + begin, count, MPI_BYTE, peer, kPieceTag, communicator_, request);
      });
      start(requests, [&](MPI_Request* request) {
        return MPI_Isend(to(peer) + begin, count, MPI_BYTE, peer, kPieceTag, communicator_, request);
      });
    }
    finish(where, requests);
  }
}

void MpiBackend::reduce(const detail::Whereabouts& where, const at::Tensor& slices, const at::Tensor& output) const {
  const ReduceOp op = where.operation.reduce;
  std::vector<const void*> sources;
  for (int peer = 0; peer < size(); ++peer) {
    sources.push_back(static_cast<const char*>(slices.const_data_ptr()) + static_cast<size_t>(peer) * output.nbytes());
  }
  detail::reduce_buffers({.type = detail::element_type(output.scalar_type()),
                          .reduction = op == ReduceOp::kMax ? detail::Reduction::kMax : detail::Reduction::kSum,
                          .sources = sources.data(),
                          .num_sources = size(),
                          .out = output.data_ptr(),
                          .numel = output.numel(),
                          .scale = op == ReduceOp::kAvg ? 1.0F / static_cast<float>(size()) : 1.0F});
}

at::Tensor MpiBackend::scratch(const at::Tensor& like, int64_t numel) {
  buffers_.push_back(at::empty({numel}, like.options()));
  return buffers_.back();
}

std::vector<MPI_Status> MpiBackend::finish(const detail::Whereabouts& where, std::vector<MPI_Request>& requests) {
  std::vector<MPI_Status> statuses;
  auto next_look = steady_clock::now() + kLookEvery;
  poll(requests, statuses, [&] {
    where.control.throw_if_aborted();
    if (steady_clock::now() < next_look && !where.control.expired()) return;
    detail::throw_if_in_trouble(where);
    next_look = steady_clock::now() + kLookEvery;
  });
  return statuses;
}

// A copy of MPI_COMM_WORLD; all ranks make theirs in the same order.
MPI_Comm duplicate_world(const MpiOptions& options) {
  MPI_Comm copy = MPI_COMM_NULL;
  std::vector<MPI_Request> requests(1, MPI_REQUEST_NULL);
  {
    const auto guard = MpiProcess::instance().lock();
    const int code = MPI_Comm_idup(MPI_COMM_WORLD, &copy, requests.data());
    if (code != MPI_SUCCESS) throw CommError(concat("[comm] MPI_Comm_idup: ", error_text(code)));
  }
  const auto end = steady_clock::now() + options.group.timeout;
  std::vector<MPI_Status> statuses;
  poll(requests, statuses, [&] {
    if (steady_clock::now() < end) return;
    MpiProcess::instance().abandon({});
    throw CommError(concat("[comm] connecting group ", options.group.name, " (mpi) on rank ", options.rank,
                           ": not all ranks are here after ", options.group.timeout.count(), " ms"));
  });
  const auto guard = MpiProcess::instance().lock();
  MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN);
  return copy;
}

void check_ranks(const MpiOptions& options) {
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  HYDROFOIL_CHECK_ARG(rank == options.rank && size == options.size, kFunction, "this process is rank ", options.rank,
                      " of ", options.size, " by the environment (RANK, WORLD_SIZE), but rank ", rank, " of ", size,
                      " in MPI_COMM_WORLD: start every rank with one mpirun, and leave RANK and WORLD_SIZE to it");
}

}  // namespace

std::string mpi_problem() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized != 0) return "";
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"}) {
    if (std::getenv(name) != nullptr) return "";
  }
  return "MPI has not started this process: start the ranks with mpirun or srun";
}

std::vector<Group> make_mpi_groups(const MpiOptions& options) {
  HYDROFOIL_CHECK_ARG(options.num_channels >= 1, kFunction, "num_channels is ", options.num_channels,
                      ", expected at least 1");
  HYDROFOIL_CHECK_ARG(options.max_message_bytes >= 1 && options.max_message_bytes <= INT_MAX, kFunction,
                      "max_message_bytes is ", options.max_message_bytes, ", expected 1 to ", INT_MAX);
  const std::string problem = mpi_problem();
  HYDROFOIL_CHECK_ARG(problem.empty(), kFunction, problem);
  MpiProcess::instance().start();
  check_ranks(options);
  std::vector<Group> groups;
  for (int channel = 0; channel < options.num_channels; ++channel) {
    groups.emplace_back(std::make_unique<MpiBackend>(duplicate_world(options), options, channel), options.group);
  }
  return groups;
}

}  // namespace hydrofoil::comm
