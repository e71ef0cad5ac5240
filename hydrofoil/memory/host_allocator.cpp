#include "hydrofoil/memory/host_allocator.h"

#include <ATen/ops/empty.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/alignment.h"
#include "hydrofoil/memory/detail/flat_tensor.h"
#include "hydrofoil/memory/free_ranges.h"

namespace hydrofoil::memory {

// NOTE [Host allocator]
// A training step asks for the same large tensors again and again. glibc maps those above a threshold (which it moves,
// up to 32 MiB) anew each time: the kernel zeroes their pages in every step, 7 % of a step of SmolLM2 (logits of 50
// MB). With mapping off its heap splits, and holds 300 MiB more. Here large tensors live first-fit in one region of
// huge pages that stays resident. What a backward needs at its end, the gradients that it leaves, takes the place of
// the activations that it has freed. The region is private: a forked child has its own.

namespace {

constexpr int64_t kFromBytes = int64_t{64} << 10;

class HostAllocator final : public c10::Allocator {
 public:
  HostAllocator(char* base, int64_t num_bytes, c10::Allocator* small)
      : base_(base), num_bytes_(num_bytes), small_(small), ranges_(num_bytes) {}

  c10::DataPtr allocate(size_t num_bytes) override { return allocate(num_bytes, false); }

  c10::DataPtr allocate(size_t num_bytes, bool from_the_top) {
    const auto wanted = static_cast<int64_t>(num_bytes);
    if (wanted < kFromBytes || wanted > num_bytes_) return small_->allocate(num_bytes);
    const int64_t padded = round_up(wanted, kHostAlignmentBytes);
    void* address = nullptr;
    {
      const std::lock_guard lock(mutex_);
      std::optional<int64_t> offset;
      if (from_the_top) offset = ranges_.take_last(padded, kHostAlignmentBytes, use_.resident_bytes);
      if (!offset) offset = ranges_.take(padded, kHostAlignmentBytes);
      if (offset) {
        address = base_ + *offset;
        taken_.emplace(address, padded);
        use_.in_use_bytes += padded;
        use_.resident_bytes = std::max(use_.resident_bytes, *offset + padded);
      }
    }
    if (address == nullptr) return small_->allocate(num_bytes);
    // Pointer and context are the same: torch's raw interface asks for it.
    return {address, address, &HostAllocator::give_back, c10::Device(c10::kCPU)};
  }

  // What the raw interface frees may come from either.
  c10::DeleterFnPtr raw_deleter() const override { return &HostAllocator::raw_free; }

  void copy_data(void* dest, const void* src, std::size_t count) const override { std::memcpy(dest, src, count); }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  void trim() {
    const std::lock_guard lock(mutex_);
    for (const auto& [offset, length] : ranges_.free()) {
      const int64_t begin = round_up(offset, kHugePageBytes);  // smaller pieces would split them
      const int64_t end = std::min(offset + length, use_.resident_bytes) / kHugePageBytes * kHugePageBytes;
      if (end > begin) ::madvise(base_ + begin, end - begin, MADV_DONTNEED);
      if (offset + length == num_bytes_) use_.resident_bytes = std::min(use_.resident_bytes, begin);
    }
  }

  HostAllocatorUse use() {
    const std::lock_guard lock(mutex_);
    return use_;
  }

  static HostAllocator* instance;

 private:
  static void give_back(void* address) {
    HostAllocator& self = *instance;
    const std::lock_guard lock(self.mutex_);
    const auto taken = self.taken_.find(address);
    HYDROFOIL_ASSERT(taken != self.taken_.end(), "freed twice");
    self.ranges_.give_back(static_cast<char*>(address) - self.base_, taken->second);
    self.use_.in_use_bytes -= taken->second;
    self.taken_.erase(taken);
  }

  static void raw_free(void* address) {
    const HostAllocator& self = *instance;
    const auto* byte = static_cast<char*>(address);
    if (byte >= self.base_ && byte < self.base_ + self.num_bytes_) {
      give_back(address);
    } else {
      self.small_->raw_deleter()(address);
    }
  }

  char* const base_;
  const int64_t num_bytes_;
  c10::Allocator* const small_;
  std::mutex mutex_;
  FreeRanges ranges_;
  std::unordered_map<void*, int64_t> taken_;
  HostAllocatorUse use_;
};

HostAllocator* HostAllocator::instance = nullptr;

constexpr bool has_address_sanitizer() {
#if defined(__SANITIZE_ADDRESS__)
  return true;
#elif defined(__has_feature)
  return __has_feature(address_sanitizer);
#else
  return false;
#endif
}

void install() {
  if (has_address_sanitizer() || environment("HYDROFOIL_HOST_ALLOCATOR").value_or("") == "torch") return;
  const int64_t num_bytes = int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
  void* base = ::mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return;
  ::madvise(base, num_bytes, MADV_HUGEPAGE);
  // Never destroyed: tensors may outlive everything else.
  HostAllocator::instance = new HostAllocator(static_cast<char*>(base), num_bytes, c10::GetCPUAllocator());
  // A fork while another thread allocates would leave the child a locked mutex.
  ::pthread_atfork([] { HostAllocator::instance->lock(); }, [] { HostAllocator::instance->unlock(); },
                   [] { HostAllocator::instance->unlock(); });
  c10::SetCPUAllocator(HostAllocator::instance, 1);
#if defined(__GLIBC__)
  // What is left to glibc is small: no block of its own, and no page back and forth at the heap's end in every step.
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 32 << 20);
#endif
}

}  // namespace

void install_host_allocator() {
  static std::once_flag once;
  std::call_once(once, install);
}

at::Tensor make_successor_tensor(int64_t numel, at::ScalarType dtype, const c10::Device& device) {
  if (HostAllocator::instance == nullptr || !device.is_cpu()) {
    return at::empty({numel}, at::TensorOptions().dtype(dtype).device(device));
  }
  const int64_t num_bytes =
      checked_multiply(numel, static_cast<int64_t>(c10::elementSize(dtype)), "make_successor_tensor");
  return flat_tensor_over(HostAllocator::instance->allocate(static_cast<size_t>(num_bytes), true), num_bytes, numel,
                          dtype);
}

void trim_host_allocator() {
  if (HostAllocator::instance != nullptr) HostAllocator::instance->trim();
}

HostAllocatorUse host_allocator_use() {
  return HostAllocator::instance == nullptr ? HostAllocatorUse{} : HostAllocator::instance->use();
}

}  // namespace hydrofoil::memory
