#include "hydrofoil/memory/allocation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/arena.h"
#include "hydrofoil/memory/detail/flat_tensor.h"

namespace hydrofoil::memory {
namespace {

constexpr int64_t kMapFromBytes = 1 << 20;
constexpr int64_t kHugePagesFromBytes = 8 << 20;

struct Mapping {
  void* address;
  size_t num_bytes;
};

void unmap(void* context) {
  auto* mapping = static_cast<Mapping*>(context);
  ::munmap(mapping->address, mapping->num_bytes);
  delete mapping;
}

c10::DataPtr map_host(int64_t num_bytes) {
  void* address = ::mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    throw_system_error("allocate_zeroed", detail::concat("cannot get ", num_bytes, " bytes of host memory"), errno);
  }
  if (num_bytes >= kHugePagesFromBytes) ::madvise(address, num_bytes, MADV_HUGEPAGE);
  return {address, new Mapping{address, static_cast<size_t>(num_bytes)}, &unmap, c10::Device(c10::kCPU)};
}

}  // namespace

int64_t alignment_bytes(const c10::Device& device) {
  return device.is_cpu() ? kHostAlignmentBytes : kCudaAlignmentBytes;
}

c10::DataPtr allocate_zeroed(const c10::Device& device, int64_t num_bytes) {
  HYDROFOIL_CHECK_ARG(num_bytes >= 0, "allocate_zeroed", "num_bytes: got ", num_bytes, ", expected >= 0");
  if (!device.is_cpu()) {
    at::Tensor zeros = at::zeros({num_bytes}, at::TensorOptions().dtype(at::kByte).device(device));
    void* address = zeros.data_ptr();
    return {address, new at::Tensor(std::move(zeros)), [](void* context) { delete static_cast<at::Tensor*>(context); },
            device};
  }
  if (num_bytes >= kMapFromBytes) return map_host(num_bytes);
  const int64_t padded = round_up(num_bytes > 0 ? num_bytes : 1, kHostAlignmentBytes);
  void* address = std::aligned_alloc(kHostAlignmentBytes, padded);
  if (address == nullptr) {
    throw_system_error("allocate_zeroed", detail::concat("cannot get ", num_bytes, " bytes of host memory"), ENOMEM);
  }
  std::memset(address, 0, padded);
  return {address, address, &std::free, device};
}

at::Tensor flat_tensor_over(c10::DataPtr memory, int64_t num_bytes, int64_t numel, at::ScalarType dtype) {
  const c10::Device device = memory.device();
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), c10::SymInt(num_bytes),
                                                       std::move(memory), nullptr, false);
  at::Tensor flat = at::empty({0}, at::TensorOptions().dtype(dtype).device(device));
  flat.set_(c10::Storage(std::move(storage)), 0, {numel}, {1});
  return flat;
}

at::Tensor make_flat_tensor(int64_t numel, at::ScalarType dtype, const c10::Device& device) {
  const int64_t num_bytes = checked_multiply(numel, static_cast<int64_t>(c10::elementSize(dtype)), "make_flat_tensor");
  return flat_tensor_over(allocate_zeroed(device, num_bytes), num_bytes, numel, dtype);
}

at::Tensor make_flat_tensor(int64_t numel, at::ScalarType dtype, Arena& arena, bool at_page) {
  const int64_t num_bytes = checked_multiply(numel, static_cast<int64_t>(c10::elementSize(dtype)), "make_flat_tensor");
  at::Tensor flat = flat_tensor_over(arena.allocate(num_bytes, at_page), num_bytes, numel, dtype);
  return flat.zero_();
}

}  // namespace hydrofoil::memory
