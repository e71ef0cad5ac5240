#include "hydrofoil/comm/shared_slices.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/group.h"
#include "hydrofoil/memory/alignment.h"

namespace hydrofoil::comm {

// NOTE [Shared slices]
// Every rank maps the slices of all, its own too, privately: Linux shows a private page of a file as the file's own
// until the process writes it. So what a rank's owner writes in its slice is read by all without a copy, while what a
// user writes in place (load_state_dict on every rank, a forked child) stays in the process that wrote it: never a
// double update, never a fault. The owner writes through its own slice, and only when no rank reads: see
// Runtime::publish.

namespace {

using memory::kPageBytes;

// Whether a page of the range is a copy of this process's own; true where the system does not tell.
bool has_private_page(const char* data, int64_t num_bytes) {
  constexpr uint64_t kPresent = uint64_t{1} << 63, kSwapped = uint64_t{1} << 62, kOfFile = uint64_t{1} << 61;
  std::array<uint64_t, 4096> entries{};
  const int file = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (file < 0) return true;
  auto page = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) / kPageBytes);
  const int64_t end = page + num_bytes / kPageBytes;
  bool found = false;
  while (page < end && !found) {
    const int64_t wanted = std::min<int64_t>(end - page, entries.size());
    const ssize_t bytes =
        ::pread(file, entries.data(), wanted * sizeof(uint64_t), page * static_cast<int64_t>(sizeof(uint64_t)));
    if (bytes < static_cast<ssize_t>(sizeof(uint64_t))) {
      found = true;
      break;
    }
    const int64_t got = bytes / static_cast<int64_t>(sizeof(uint64_t));
    found = std::any_of(entries.begin(), entries.begin() + got,
                        [](uint64_t entry) { return (entry & (kPresent | kSwapped)) != 0 && (entry & kOfFile) == 0; });
    page += got;
  }
  ::close(file);
  return found;
}

}  // namespace

SharedSlices::SharedSlices(char* data, int64_t num_bytes, at::Tensor own)
    : data_(data), num_bytes_(num_bytes), own_(std::move(own)) {}

SharedSlices::~SharedSlices() { ::munmap(data_, static_cast<size_t>(num_bytes_)); }

std::shared_ptr<SharedSlices> SharedSlices::map(const Group& group, Backend& backend, const at::Tensor& slice) {
  constexpr const char* kFunction = "Group::share_slices";
  const int64_t slice_bytes = static_cast<int64_t>(slice.nbytes());
  const int size = group.size();
  HYDROFOIL_CHECK_ARG(slice_bytes % kPageBytes == 0, kFunction, "slice: got ", slice_bytes,
                      " bytes, expected a multiple of ", kPageBytes);
  const int64_t offset = backend.heap_offset(slice.const_data_ptr(), slice_bytes);
  if (size == 1 || slice_bytes == 0) return nullptr;
  at::Tensor offsets = at::empty({size}, at::kLong);
  group.all_gather(at::full({1}, offset, at::kLong), offsets, {.unit = "places of slices"}).wait();
  const int64_t* of_rank = offsets.const_data_ptr<int64_t>();
  if (std::any_of(of_rank, of_rank + size, [](int64_t place) { return place < 0 || place % kPageBytes != 0; })) {
    return nullptr;
  }
  const int64_t num_bytes = slice_bytes * size;
  void* data =
      ::mmap(nullptr, static_cast<size_t>(num_bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  bool mapped = data != MAP_FAILED;
  std::shared_ptr<SharedSlices> slices;
  if (mapped) slices = std::shared_ptr<SharedSlices>(new SharedSlices(static_cast<char*>(data), num_bytes, slice));
  for (int rank = 0; rank < size && mapped; ++rank) {
    mapped = backend.map_private(rank, of_rank[rank], slice_bytes, slices->data_ + rank * slice_bytes);
  }
  at::Tensor failed = at::full({1}, mapped ? 0 : 1, at::kLong);
  group.all_reduce(failed, ReduceOp::kMax, {.unit = "mapped slices"}).wait();
  return failed.const_data_ptr<int64_t>()[0] == 0 ? slices : nullptr;
}

void SharedSlices::discard_writes() const {
  if (!has_private_page(data_, num_bytes_)) return;
  if (::madvise(data_, static_cast<size_t>(num_bytes_), MADV_DONTNEED) != 0) {
    throw_system_error("SharedSlices::discard_writes",
                       hydrofoil::detail::concat("cannot drop the copied pages of ", num_bytes_, " bytes"), errno);
  }
}

}  // namespace hydrofoil::comm
