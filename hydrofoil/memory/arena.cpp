#include "hydrofoil/memory/arena.h"

#include <ATen/ops/empty.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/memory/allocation.h"

namespace hydrofoil::memory {
namespace {

constexpr int kCollapse = 25;  // MADV_COLLAPSE, which the headers of older systems lack

}  // namespace

struct Arena::Slot {
  std::shared_ptr<Arena> arena;
  size_t region = 0;
  int64_t offset = 0;
  int64_t num_bytes = 0;
  at::Tensor device_memory;  // CUDA only
};

std::shared_ptr<Arena> Arena::create(const c10::Device& device, int64_t region_bytes) {
  HYDROFOIL_CHECK_ARG(region_bytes >= 0, "Arena::create", "region_bytes: got ", region_bytes, ", expected >= 0");
  return std::shared_ptr<Arena>(new Arena(device, std::max(round_up(region_bytes, kPageBytes), kPageBytes)));
}

Arena::Arena(const c10::Device& device, int64_t region_bytes) : device_(device), region_bytes_(region_bytes) {}

std::shared_ptr<Arena> Arena::create_over(char* base, int64_t num_bytes, std::shared_ptr<void> owner) {
  HYDROFOIL_CHECK_ARG(num_bytes > 0 && num_bytes % kPageBytes == 0, "Arena::create_over", "num_bytes: got ", num_bytes,
                      ", expected a multiple of ", kPageBytes);
  auto arena = create(c10::Device(c10::kCPU), 0);
  arena->regions_.push_back({.base = base, .num_bytes = num_bytes, .shared = true, .ranges = FreeRanges(num_bytes)});
  arena->owner_ = std::move(owner);
  arena->owner_process_ = ::getpid();
  return arena;
}

bool Arena::is_ours() const { return owner_process_ == ::getpid(); }

Arena::~Arena() {
  // A shared region is its owner's: another arena may stand over it by now.
  for (const Region& region : regions_) {
    if (!region.shared) ::munmap(region.base, region.num_bytes);
  }
}

void Arena::add_region(int64_t num_bytes) {
  void* base = ::mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    throw_system_error("Arena::allocate", detail::concat("cannot reserve ", num_bytes, " bytes of address space"),
                       errno);
  }
  Region region{.base = static_cast<char*>(base), .num_bytes = num_bytes, .ranges = FreeRanges(num_bytes)};
  regions_.push_back(std::move(region));
}

// NOTE [Huge pages of shared memory]
// Copies and sums of large buffers take a fifth longer from pages of 4 KiB. For shared memory Linux has its own setting
// (/sys/kernel/mm/transparent_hugepage/shmem_enabled), `never` by default, so that MADV_HUGEPAGE does nothing; but
// MADV_COLLAPSE (Linux 6.1) asks for huge pages now and regards no setting. It wants something to collapse: one page of
// each. The peers then map them as huge ones, since their mapping and the file begin at multiples of a huge page. Only
// pages that lie in a slot as a whole are asked for, so that no memory is touched that the slot does not have.
void Arena::use_huge_pages(Region& region, int64_t offset, int64_t num_bytes) {
  if (!region.shared || !huge_pages_work_ || reinterpret_cast<uintptr_t>(region.base) % kHugePageBytes != 0) return;
  const int64_t end = (offset + num_bytes) / kHugePageBytes;
  int64_t page = round_up(offset, kHugePageBytes) / kHugePageBytes;
  region.is_huge.resize(std::max(region.is_huge.size(), static_cast<size_t>(std::max<int64_t>(end, 0))));
  while (page < end) {
    int64_t behind = page;
    for (; behind < end && !region.is_huge[static_cast<size_t>(behind)]; ++behind) {
      region.base[behind * kHugePageBytes] = 0;
    }
    if (behind > page &&
        ::madvise(region.base + page * kHugePageBytes, (behind - page) * kHugePageBytes, kCollapse) != 0) {
      huge_pages_work_ = false;
      log_debug("shared memory of this process has pages of 4 KiB: madvise(MADV_COLLAPSE): ", std::strerror(errno));
      return;
    }
    std::fill(region.is_huge.begin() + page, region.is_huge.begin() + behind, true);
    page = behind + 1;
  }
}

c10::DataPtr Arena::allocate(int64_t num_bytes, bool at_page) {
  HYDROFOIL_CHECK_ARG(num_bytes >= 0, "Arena::allocate", "num_bytes: got ", num_bytes, ", expected >= 0");
  const int64_t wanted = std::max(round_up(num_bytes, alignment_bytes(device_)), alignment_bytes(device_));
  auto slot = std::make_unique<Slot>();
  slot->arena = shared_from_this();
  slot->num_bytes = wanted;
  void* address = nullptr;
  const std::lock_guard lock(mutex_);
  if (!device_.is_cpu()) {
    slot->device_memory = at::empty({wanted}, at::TensorOptions().dtype(at::kByte).device(device_));
    address = slot->device_memory.data_ptr();
  }
  while (address == nullptr) {
    for (size_t r = 0; r < regions_.size() && address == nullptr; ++r) {
      const auto offset = regions_[r].ranges.take(wanted, at_page ? kPageBytes : alignment_bytes(device_));
      if (!offset) continue;
      slot->region = r;
      slot->offset = *offset;
      address = regions_[r].base + *offset;
    }
    if (address == nullptr) add_region(std::max(region_bytes_, round_up(wanted, kPageBytes)));
  }
  if (device_.is_cpu()) use_huge_pages(regions_[slot->region], slot->offset, wanted);
  in_use_bytes_ += wanted;
  peak_bytes_ = std::max(peak_bytes_, in_use_bytes_);
  return {address, slot.release(), &Arena::delete_slot, device_};
}

void Arena::delete_slot(void* context) {
  const std::unique_ptr<Slot> slot(static_cast<Slot*>(context));
  slot->arena->give_back(*slot);
}

void Arena::give_back(const Slot& slot) {
  const std::lock_guard lock(mutex_);
  if (poison_) {
    if (device_.is_cpu()) {
      std::memset(regions_[slot.region].base + slot.offset, 0xff, slot.num_bytes);
    } else {
      slot.device_memory.fill_(0xff);
    }
  }
  in_use_bytes_ -= slot.num_bytes;
  if (!device_.is_cpu()) return;
  regions_[slot.region].ranges.give_back(slot.offset, slot.num_bytes);
}

int64_t Arena::in_use_bytes() const {
  const std::lock_guard lock(mutex_);
  return in_use_bytes_;
}

int64_t Arena::peak_bytes() const {
  const std::lock_guard lock(mutex_);
  return peak_bytes_;
}

void Arena::reset_peak() {
  const std::lock_guard lock(mutex_);
  peak_bytes_ = in_use_bytes_;
}

void Arena::poison_released() {
  const std::lock_guard lock(mutex_);
  poison_ = true;
}

void Arena::trim() {
  const std::lock_guard lock(mutex_);
  for (Region& region : regions_) {
    if (region.shared && !is_ours()) continue;
    for (const auto& [offset, length] : region.ranges.free()) {
      const int64_t begin = round_up(offset, kPageBytes);
      const int64_t end = (offset + length) / kPageBytes * kPageBytes;
      if (end > begin) ::madvise(region.base + begin, end - begin, region.shared ? MADV_REMOVE : MADV_DONTNEED);
      const auto num_huge = static_cast<int64_t>(region.is_huge.size());
      for (int64_t page = begin / kHugePageBytes; page < num_huge && page * kHugePageBytes < end; ++page) {
        region.is_huge[static_cast<size_t>(page)] = false;
      }
    }
  }
}

}  // namespace hydrofoil::memory
