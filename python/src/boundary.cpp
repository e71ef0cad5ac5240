#include <torch/csrc/autograd/python_variable.h>

#include <structmember.h>

#include <ATen/core/grad_mode.h>

#include <optional>

#include "bindings.h"
#include "hydrofoil/zero/unit_call.h"

namespace hydrofoil::python {
namespace {

// A C callable costs a quarter of Python's hooks a call; see docs/architecture.md.
struct Boundary {
  PyObject_HEAD;
  vectorcallfunc vectorcall;
  PyObject* forward;
  EnginePointer* engine;
  int scope;
};

constexpr int kMaxDepth = 8;       // of containers in arguments and results
constexpr int kMaxObjects = 1024;  // containers and attributes that are looked at in one result

// Calls `visit` for each tensor in tuples, lists, dicts, sets and dataclasses; with `plain_objects` in the attributes
// of other objects too that are no modules or functions, up to kMaxObjects of them.
template <typename Visit>
class TensorVisitor {
 public:
  TensorVisitor(const Visit& visit, bool plain_objects) : visit_(visit), plain_objects_(plain_objects) {}

  void operator()(PyObject* object, int depth = 0) {
    if (THPVariable_Check(object)) return visit_(THPVariable_Unpack(object));
    if (depth > kMaxDepth) return;
    if (PyTuple_Check(object)) {
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i) (*this)(PyTuple_GET_ITEM(object, i), depth + 1);
    } else if (PyList_Check(object)) {
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(object); ++i) (*this)(PyList_GET_ITEM(object, i), depth + 1);
    } else if (PyDict_Check(object)) {
      PyObject* key = nullptr;
      PyObject* value = nullptr;
      Py_ssize_t position = 0;
      while (PyDict_Next(object, &position, &key, &value)) (*this)(value, depth + 1);
    } else if (PyAnySet_Check(object)) {
      for (const py::handle item : py::reinterpret_borrow<py::iterable>(object)) (*this)(item.ptr(), depth + 1);
    } else if (has_attributes(object)) {
      const py::object fields = py::reinterpret_steal<py::object>(PyObject_GetAttrString(object, "__dict__"));
      if (!fields) return PyErr_Clear();
      (*this)(fields.ptr(), depth + 1);
    }
  }

 private:
  bool has_attributes(PyObject* object) {
    if (PyType_Check(object)) return false;
    if (PyObject_HasAttrString(object, "__dataclass_fields__")) return true;
    return plain_objects_ && !PyModule_Check(object) && !PyCallable_Check(object) &&
           PyObject_HasAttrString(object, "__dict__") && ++num_objects_ <= kMaxObjects;
  }

  const Visit& visit_;
  const bool plain_objects_;
  int num_objects_ = 0;
};

template <typename Visit>
void visit_tensors(PyObject* object, const Visit& visit, bool plain_objects = false) {
  TensorVisitor<Visit>(visit, plain_objects)(object);
}

PyObject* call(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  auto* boundary = reinterpret_cast<Boundary*>(self);
  zero::Runtime& runtime = (*boundary->engine)->runtime();
  if (!runtime.alive()) return PyObject_Vectorcall(boundary->forward, args, nargsf, kwnames);
  std::optional<zero::UnitCall> unit_call;
  const size_t num_args = PyVectorcall_NARGS(nargsf) + (kwnames != nullptr ? PyTuple_GET_SIZE(kwnames) : 0);
  const bool with_gradients = at::GradMode::is_enabled();
  PyObject* result = nullptr;
  try {
    {
      const py::gil_scoped_release no_gil;  // a gather may wait
      unit_call.emplace(runtime, boundary->scope);
    }
    for (size_t i = 0; i < num_args && with_gradients; ++i) {
      visit_tensors(args[i], [&](const at::Tensor& tensor) { unit_call->input(tensor); });
    }
    result = PyObject_Vectorcall(boundary->forward, args, nargsf, kwnames);
    if (result == nullptr) return nullptr;
    {
      std::optional<py::gil_scoped_release> no_gil;
      if (runtime.gatherer().joins()) no_gil.emplace();  // it waits for the other ranks
      unit_call->leave();
    }
    bool watched = false;
    const auto watch = [&](const at::Tensor& tensor) { watched = unit_call->output(tensor) || watched; };
    visit_tensors(result, watch, /*plain_objects=*/true);
    if (!watched && at::GradMode::is_enabled()) {  // results may leave in an argument, such as a list
      for (size_t i = 0; i < num_args; ++i) visit_tensors(args[i], watch);
    }
  } catch (...) {
    set_python_error();
    Py_XDECREF(result);
    return nullptr;
  }
  return result;
}

void deallocate(PyObject* self) {
  auto* boundary = reinterpret_cast<Boundary*>(self);
  PyObject_GC_UnTrack(self);
  Py_CLEAR(boundary->forward);
  delete boundary->engine;
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(reinterpret_cast<Boundary*>(self)->forward);
  Py_VISIT(Py_TYPE(self));
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(reinterpret_cast<Boundary*>(self)->forward);
  return 0;
}

// inspect.signature follows __wrapped__.
PyObject* wrapped(PyObject* self, void* /*closure*/) {
  PyObject* forward = reinterpret_cast<Boundary*>(self)->forward;
  if (forward == nullptr) Py_RETURN_NONE;
  return Py_NewRef(forward);
}

// copy.deepcopy and pickle take the plain forward along, through operator.itemgetter(0): a copied model is an ordinary
// one, and a pickled one loads where there is no hydrofoil.
PyObject* reduce(PyObject* self, PyObject* /*unused*/) {
  PyObject* operators = PyImport_ImportModule("operator");
  if (operators == nullptr) return nullptr;
  PyObject* first = PyObject_CallMethod(operators, "itemgetter", "i", 0);
  Py_DECREF(operators);
  if (first == nullptr) return nullptr;
  return Py_BuildValue("N((O))", first, reinterpret_cast<Boundary*>(self)->forward);
}

PyGetSetDef getters[] = {{"__wrapped__", &wrapped, nullptr, "the module's own forward", nullptr}, {}};
PyMethodDef methods[] = {{"__reduce__", &reduce, METH_NOARGS, nullptr}, {}};
PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(Boundary, vectorcall), READONLY, nullptr}, {}};
PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(&deallocate)},
                       {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                       {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                       {Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},
                       {Py_tp_getset, getters},
                       {Py_tp_methods, methods},
                       {Py_tp_members, members},
                       {0, nullptr}};
PyType_Spec spec{"hydrofoil._C.Boundary", sizeof(Boundary), 0,
                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL, slots};

PyObject* boundary_type = nullptr;  // owned by the module for the life of the process

}  // namespace

void init_boundary_type(py::module_& module) {
  boundary_type = PyType_FromSpec(&spec);
  if (boundary_type == nullptr) throw py::error_already_set();
  module.attr("Boundary") = py::handle(boundary_type);
}

py::object make_boundary(EnginePointer engine, int scope, py::object forward) {
  auto* type = reinterpret_cast<PyTypeObject*>(boundary_type);
  auto* boundary = reinterpret_cast<Boundary*>(type->tp_alloc(type, 0));
  if (boundary == nullptr) throw py::error_already_set();
  boundary->vectorcall = &call;
  boundary->forward = forward.release().ptr();
  boundary->engine = new EnginePointer(std::move(engine));
  boundary->scope = scope;
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(boundary));
}

}  // namespace hydrofoil::python
