#pragma once

#include <string>

namespace hydrofoil::doctor {

// What a real call said.
struct Probe {
  bool works = false;
  std::string reason;  // why not, e.g. "io_uring_setup: Operation not permitted"
};

// Shared memory as the ranks of a host use it: a memfd, sized, sealed and mapped.
[[nodiscard]] Probe probe_memfd();

// Huge pages for such memory, asked for by madvise(MADV_COLLAPSE).
[[nodiscard]] Probe probe_shared_huge_pages();

// A ring of io_uring.
[[nodiscard]] Probe probe_io_uring();

// A file in `folder`, made and removed.
[[nodiscard]] Probe probe_writable(const std::string& folder);

}  // namespace hydrofoil::doctor
