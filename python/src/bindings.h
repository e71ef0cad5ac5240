#pragma once

#include <torch/csrc/utils/pybind.h>

#include "hydrofoil/engine/engine.h"

namespace hydrofoil::python {

namespace py = pybind11;

// Tables of bindings, one a file; each adds its classes and functions to the module.
void bind_errors(py::module_& module);
void bind_c10d(py::module_& module);
void bind_comm(py::module_& module);
void bind_config(py::module_& module);
void bind_checkpoint(py::module_& module);
void bind_optim(py::module_& module);
void bind_runtime(py::module_& module);
void bind_plan(py::module_& module);
void bind_engine(py::module_& module);
void bind_report(py::module_& module);

// Turns the exception that is being handled into a Python one; used where C functions are called by Python directly.
void set_python_error();
// Throws an error of Hydrofoil that is being handled again as the python_error of torch, so that its type passes
// through autograd; returns for every other exception. Takes the GIL.
void throw_python_error();

// Deletes without the GIL: the end of a channel waits for its thread, which may need the GIL to let go of a tensor.
struct DeleteWithoutGil {
  template <typename T>
  void operator()(T* object) const {
    if (PyGILState_Check() == 0) {
      delete object;
      return;
    }
    const py::gil_scoped_release no_gil;
    delete object;
  }
};

template <typename T>
void reset_without_gil(std::shared_ptr<T>& object) {
  if (PyGILState_Check() == 0) {
    object.reset();
    return;
  }
  const py::gil_scoped_release no_gil;
  object.reset();
}

// The engine with what Python keeps alive beside it.
using EnginePointer = std::shared_ptr<engine::Engine>;

// A callable in place of a module's forward that gathers and releases the units of `scope` around it.
py::object make_boundary(EnginePointer engine, int scope, py::object forward);
void init_boundary_type(py::module_& module);

// A copy of a module's _parameters whose item access gathers a released parameter inside forward and backward.
py::object make_parameter_dict(EnginePointer engine, const py::dict& parameters);
void init_parameter_dict_type(py::module_& module);

}  // namespace hydrofoil::python
