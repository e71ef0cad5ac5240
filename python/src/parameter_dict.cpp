#include <torch/csrc/autograd/python_variable.h>

#include "bindings.h"

namespace hydrofoil::python {
namespace {

struct ParameterDict {
  PyDictObject dict;
  EnginePointer* engine;  // null in a copy, which is a plain dict
};

PyObject* subscript(PyObject* self, PyObject* key) {
  PyObject* value = PyDict_GetItemWithError(self, key);
  if (value == nullptr) {
    if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, key);
    return nullptr;
  }
  const EnginePointer* engine = reinterpret_cast<ParameterDict*>(self)->engine;
  if (engine != nullptr && THPVariable_Check(value)) {
    try {
      zero::Runtime& runtime = (*engine)->runtime();
      if (runtime.alive()) {
        const int64_t parameter = runtime.find(THPVariable_Unpack(value));
        if (parameter >= 0) {
          const py::gil_scoped_release no_gil;
          runtime.access(parameter);
        }
      }
    } catch (...) {
      set_python_error();
      return nullptr;
    }
  }
  return Py_NewRef(value);
}

void deallocate(PyObject* self) {
  auto* parameters = reinterpret_cast<ParameterDict*>(self);
  PyTypeObject* type = Py_TYPE(self);
  delete parameters->engine;
  parameters->engine = nullptr;
  PyDict_Type.tp_dealloc(self);
  Py_DECREF(type);
}

// A copy or a pickle of a module holds an ordinary dict.
PyObject* reduce(PyObject* self, PyObject* /*unused*/) {
  PyObject* plain = PyDict_Copy(self);
  if (plain == nullptr) return nullptr;
  return Py_BuildValue("O(N)", reinterpret_cast<PyObject*>(&PyDict_Type), plain);
}

PyMethodDef methods[] = {{"__reduce__", &reduce, METH_NOARGS, nullptr}, {}};
PyType_Slot slots[] = {{Py_mp_subscript, reinterpret_cast<void*>(&subscript)},
                       {Py_tp_dealloc, reinterpret_cast<void*>(&deallocate)},
                       {Py_tp_methods, methods},
                       {0, nullptr}};
PyType_Spec spec{"hydrofoil._C.ParameterDict", sizeof(ParameterDict), 0, Py_TPFLAGS_DEFAULT,
                 slots};  // GC comes from dict

PyObject* parameter_dict_type = nullptr;  // owned by the module for the life of the process

}  // namespace

void init_parameter_dict_type(py::module_& module) {
  const py::tuple bases = py::make_tuple(py::handle(reinterpret_cast<PyObject*>(&PyDict_Type)));
  parameter_dict_type = PyType_FromSpecWithBases(&spec, bases.ptr());
  if (parameter_dict_type == nullptr) throw py::error_already_set();
  module.attr("ParameterDict") = py::handle(parameter_dict_type);
}

py::object make_parameter_dict(EnginePointer engine, const py::dict& parameters) {
  const py::object result = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(parameter_dict_type));
  if (!result) throw py::error_already_set();
  if (PyDict_Update(result.ptr(), parameters.ptr()) != 0) throw py::error_already_set();
  reinterpret_cast<ParameterDict*>(result.ptr())->engine = new EnginePointer(std::move(engine));
  return result;
}

}  // namespace hydrofoil::python
