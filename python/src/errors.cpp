#include <torch/csrc/Exceptions.h>

#include "bindings.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::python {
namespace {

// Owned by the module for the life of the process.
PyObject* comm_error = nullptr;
PyObject* invalid_argument = nullptr;

void translate(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const CommError& e) {
    PyErr_SetString(comm_error, e.what());
  } catch (const InvalidArgument& e) {
    PyErr_SetString(invalid_argument, e.what());
  } catch (const SystemError& e) {
    PyErr_SetString(PyExc_OSError, e.what());
  } catch (const Error& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

}  // namespace

void bind_errors(py::module_& module) {
  comm_error = PyErr_NewExceptionWithDoc("hydrofoil.CommError",
                                         "A collective failed: a deadline passed, a rank died, or the ranks disagree.",
                                         PyExc_RuntimeError, nullptr);
  module.attr("CommError") = py::handle(comm_error);
  // DeepSpeed asserts most of what it checks: programs that catch its AssertionError catch this one.
  const py::tuple bases = py::make_tuple(py::handle(PyExc_ValueError), py::handle(PyExc_AssertionError));
  invalid_argument = PyErr_NewExceptionWithDoc("hydrofoil.InvalidArgument",
                                               "What a caller can cause: a wrong value, key, size or order of calls.",
                                               bases.ptr(), nullptr);
  module.attr("InvalidArgument") = py::handle(invalid_argument);
  py::register_exception_translator([](std::exception_ptr error) { translate(error); });
}

void set_python_error() {
  try {
    translate(std::current_exception());
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

void throw_python_error() {
  try {
    throw;
  } catch (const Error&) {
    const py::gil_scoped_acquire gil;
    set_python_error();
    python_error error;
    error.persist();
    throw error;
  } catch (...) {
    return;
  }
}

}  // namespace hydrofoil::python
