// Which local variables of running functions refer to an object.
#include "python/frames.h"

namespace autojit::python {

#if PY_VERSION_HEX < 0x030C0000

namespace {

// CPython 3.11 has no public way to read a variable that does not make a dict of all
// of them, which stays with the frame and keeps them alive. This is its struct
// `_PyInterpreterFrame`, which is the same in all of 3.11.
struct Frame {
  PyFunctionObject* function;
  PyObject* globals;
  PyObject* builtins;
  PyObject* locals;
  PyCodeObject* code;
  PyFrameObject* frame_object;
  Frame* previous;
  void* instruction;
  int stack_top;
  bool is_entry;
  char owner;
  PyObject* variables[1];
};

}  // namespace

Py_ssize_t local_references(PyObject* object) {
  Py_ssize_t count = 0;
  auto* frame = reinterpret_cast<Frame*>(PyThreadState_Get()->cframe->current_frame);
  for (; frame != nullptr; frame = frame->previous) {
    for (int i = 0; i < frame->code->co_nlocalsplus; ++i) {
      count += frame->variables[i] == object ? 1 : 0;
    }
  }
  return count;
}

#else

namespace {

// A variable that inner functions share is in a cell, which they hold.
Py_ssize_t references_of_frame(PyFrameObject* frame, PyObject* object) {
  Owned code = Owned::steal(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
  auto* of = reinterpret_cast<PyCodeObject*>(code.get());
  Owned names = Owned::steal(PyCode_GetVarnames(of));
  Owned cells = Owned::steal(names ? PyCode_GetCellvars(of) : nullptr);
  Py_ssize_t count = 0;
  for (Py_ssize_t i = 0; cells && i < PyTuple_GET_SIZE(names.get()); ++i) {
    PyObject* name = PyTuple_GET_ITEM(names.get(), i);
    if (PySequence_Contains(cells.get(), name) == 0) {
      Owned value = Owned::steal(PyFrame_GetVar(frame, name));
      count += value.get() == object ? 1 : 0;
    }
    PyErr_Clear();  // a variable without a value
  }
  PyErr_Clear();
  return count;
}

}  // namespace

Py_ssize_t local_references(PyObject* object) {
  Py_ssize_t count = 0;
  Owned frame = Owned::steal(
      reinterpret_cast<PyObject*>(PyThreadState_GetFrame(PyThreadState_Get())));
  while (frame) {
    auto* at = reinterpret_cast<PyFrameObject*>(frame.get());
    count += references_of_frame(at, object);
    frame = Owned::steal(reinterpret_cast<PyObject*>(PyFrame_GetBack(at)));
  }
  return count;
}

#endif

}  // namespace autojit::python
