#include <pybind11/chrono.h>
#include <pybind11/stl.h>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Types.hpp>

#include "bindings.h"
#include "hydrofoil/comm/c10d/shm_process_group.h"

namespace hydrofoil::python {

void bind_c10d(py::module_& module) {
  module.attr("shm_process_group_name") = comm::kShmProcessGroupName;
  module.def(
      "create_shm_process_group",
      [](const c10d::DistributedBackendOptions& options) {
        return comm::make_shm_process_group(
            options.store, options.group_rank, options.group_size,
            {.name = options.group_id,
             .global_ranks = options.global_ranks_in_group,
             .timeout = std::chrono::duration_cast<std::chrono::milliseconds>(options.timeout)});
      },
      py::arg("options"), py::call_guard<py::gil_scoped_release>(),
      "Shared memory as a backend of torch.distributed; every rank of the group calls it.");
}

}  // namespace hydrofoil::python
