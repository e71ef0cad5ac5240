#include "bindings.h"

PYBIND11_MODULE(_C, module) {
  using namespace hydrofoil::python;
  module.attr("__version__") = HYDROFOIL_VERSION;
  module.attr("torch_minor_version") = HYDROFOIL_TORCH_MINOR;
  bind_errors(module);
  bind_c10d(module);
  bind_comm(module);
  bind_config(module);
  bind_optim(module);
  bind_runtime(module);
  bind_report(module);
  bind_engine(module);
  bind_plan(module);
  bind_checkpoint(module);
  init_boundary_type(module);
  init_parameter_dict_type(module);
}
