#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "hydrofoil/memory/free_ranges.h"

namespace hydrofoil::memory {

// Slots for what lives only for a while: gathered units and gradient buckets.
//
// On the host a range of addresses is reserved once and slots are placed first-fit from its start, so the resident
// memory is the highest point that live slots ever reached, and nothing fragments the heap. On CUDA slots come from
// torch's caching allocator. A slot returns when its DataPtr dies; the arena's memory outlives the arena while a slot
// is alive. Thread-safe.
class Arena : public std::enable_shared_from_this<Arena> {
 public:
  // `region_bytes`: addresses to reserve at a time (more are reserved when they run out; only touched pages cost
  // memory).
  static std::shared_ptr<Arena> create(const c10::Device& device, int64_t region_bytes);
  // Over `num_bytes` at `base`, page-aligned shared memory of zeros that `owner` keeps mapped; where it runs out, slots
  // lie in memory of the process. Slots that cover huge pages of it get them where the system has any.
  static std::shared_ptr<Arena> create_over(char* base, int64_t num_bytes, std::shared_ptr<void> owner);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Uninitialised, aligned as memory::alignment_bytes; on the host at a page where `at_page`. Throws SystemError where
  // the system refuses.
  [[nodiscard]] c10::DataPtr allocate(int64_t num_bytes, bool at_page = false);

  [[nodiscard]] int64_t in_use_bytes() const;
  [[nodiscard]] int64_t peak_bytes() const;
  void reset_peak();
  // Debug: from now on a slot that returns is filled with NaN of every floating dtype (all bits set).
  void poison_released();

  // Gives the pages of free ranges back to the system.
  void trim();

 private:
  struct Region {
    char* base = nullptr;
    int64_t num_bytes = 0;
    bool shared = false;
    FreeRanges ranges;
    std::vector<bool> is_huge;  // of a shared region, by its huge pages
  };
  struct Slot;

  Arena(const c10::Device& device, int64_t region_bytes);
  void add_region(int64_t num_bytes);
  void give_back(const Slot& slot);
  void use_huge_pages(Region& region, int64_t offset, int64_t num_bytes);
  static void delete_slot(void* context);
  // Whether this process made the shared region: a forked child must not give back what its parent still uses.
  [[nodiscard]] bool is_ours() const;

  const c10::Device device_;
  const int64_t region_bytes_;
  mutable std::mutex mutex_;
  std::vector<Region> regions_;
  std::shared_ptr<void> owner_;  // of the shared region
  int owner_process_ = 0;
  int64_t in_use_bytes_ = 0;
  int64_t peak_bytes_ = 0;
  bool poison_ = false;
  bool huge_pages_work_ = true;
};

}  // namespace hydrofoil::memory
