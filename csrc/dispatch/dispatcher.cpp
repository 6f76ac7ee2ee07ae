#include "dispatch/dispatcher.h"

#include <structmember.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "dispatch/call.h"
#include "dispatch/registry.h"
#include "dispatch/statistics.h"
#include "objects/config.h"
#include "objects/function_state.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "python/recursion.h"
#include "skeleton/call_view.h"

namespace autojit {

namespace {

Dispatcher* as_dispatcher(PyObject* self) {
  return reinterpret_cast<Dispatcher*>(self);
}

// Whether it has its function; if not, an exception is set.
bool is_filled(const Dispatcher* self) {
  if (self->fun == nullptr) {
    PyErr_SetString(PyExc_ReferenceError, "this autojit dispatcher has no function");
  }
  return self->fun != nullptr;
}

CallView view_of(const Dispatcher* self, PyObject* const* args, std::size_t nargsf,
                 PyObject* kwnames) {
  return {self->fun_in_tree ? self->fun : nullptr, args,
          static_cast<std::uint32_t>(PyVectorcall_NARGS(nargsf)),
          kwnames != nullptr && PyTuple_GET_SIZE(kwnames) != 0 ? kwnames : nullptr,
          self->keyword_order_matters,
          // Whoever lends the arguments of a tuple does not let the place before them.
          (nargsf & PY_VECTORCALL_ARGUMENTS_OFFSET) != 0};
}

PyObject* dispatcher_vectorcall(PyObject* object, PyObject* const* args,
                                std::size_t nargsf, PyObject* kwnames) {
  Dispatcher* self = as_dispatcher(object);
  if (!is_filled(self)) {
    return nullptr;
  }
  // A partial or property lends the dispatcher, and may let it go.
  Owned held = Owned::borrow(object);
  auto positional = static_cast<std::uint32_t>(PyVectorcall_NARGS(nargsf));
  CallView call = view_of(self, args, nargsf, kwnames);
  bool is_eager = false;
  Owned result = dispatch(self, call, is_eager);
  if (is_eager) {
    const python::Level level;
    return level.entered()
               ? PyObject_Vectorcall(self->fun, call.args, positional, call.kwnames)
               : nullptr;
  }
  return result.release();
}

PyObject* counted_vectorcall(PyObject* object, PyObject* const* args,
                             std::size_t nargsf, PyObject* kwnames) {
  const CountedCall counted;
  return dispatcher_vectorcall(object, args, nargsf, kwnames);
}

bool takes_any_keyword(PyObject* fun) {
  if (PyMethod_Check(fun)) {
    fun = PyMethod_GET_FUNCTION(fun);
  }
  if (!PyFunction_Check(fun)) {
    return true;  // unknown: then the order counts
  }
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(fun));
  return (code->co_flags & CO_VARKEYWORDS) != 0;
}

// Whether a call returns something that is to be awaited.
bool is_async(PyObject* fun) {
  PyObject* function = function_of(fun);
  return function != nullptr &&
         (reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function))->co_flags &
          (CO_COROUTINE | CO_ITERABLE_COROUTINE | CO_ASYNC_GENERATOR)) != 0;
}

// The repr of an object, or what can be said of it if that raises.
PyObject* safe_repr(PyObject* object) {
  PyObject* text = PyObject_Repr(object);
  if (text != nullptr || !clear_refusal()) {
    return text;
  }
  Owned type = Owned::steal(PyObject_GetAttrString(
      reinterpret_cast<PyObject*>(Py_TYPE(object)), "__qualname__"));
  if (!type || !PyUnicode_Check(type.get())) {  // a metaclass may answer
    PyErr_Clear();
    type = Owned::steal(PyUnicode_FromString(Py_TYPE(object)->tp_name));
  }
  return type ? PyUnicode_FromFormat("<%U object at %p>", type.get(), object) : nullptr;
}

// What `functools.wraps` would take over of the function's own attributes. A callable
// object keeps its own.
bool copy_attributes(Dispatcher* self) {
  if (self->fun_in_tree || PyType_Check(self->fun)) {
    return true;
  }
  PyObject* dict = python::instance_dict(self->fun);
  if (dict == nullptr || PyDict_GET_SIZE(dict) == 0) {
    return true;
  }
  self->dict = PyDict_Copy(dict);
  if (self->dict == nullptr) {
    return false;
  }
  // What the function itself wraps is one further down.
  if (PyDict_GetItemString(self->dict, "__wrapped__") != nullptr) {
    return PyDict_DelItemString(self->dict, "__wrapped__") == 0;
  }
  return true;
}

// What stands for the function in the register of tables: a bound method is made anew
// each time it is looked up.
PyObject* table_key(PyObject* fun) {
  return PyMethod_Check(fun) ? PyMethod_GET_FUNCTION(fun) : fun;
}

// Whether a dispatcher wraps another, or is it, by way of others.
bool wraps(PyObject* fun, const Dispatcher* other) {
  while (fun != nullptr && Py_IS_TYPE(fun, &DispatcherType) &&
         as_dispatcher(fun) != other) {
    fun = as_dispatcher(fun)->fun;
  }
  return fun != nullptr && as_dispatcher(fun) == other;
}

// Makes an empty dispatcher one of `fun`. False with an exception set on failure. Runs
// Python.
bool fill(Dispatcher* self, PyObject* fun, PyObject* options, const Bounds& bounds) {
  if (PyCallable_Check(fun) == 0) {
    Owned name = Owned::steal(
        PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(fun)), "__name__"));
    Owned text = Owned::steal(name ? safe_repr(fun) : nullptr);
    if (text) {
      PyErr_Format(PyExc_TypeError, "autojit.jit needs a callable, got %U of type %S",
                   text.get(), name.get());
    }
    return false;
  }
  if (is_async(fun)) {
    Owned text = Owned::steal(safe_repr(fun));
    if (text) {
      PyErr_Format(PyExc_TypeError,
                   "autojit.jit can't wrap %U, which is async: a trace awaits nothing. "
                   "Wrap a function with the computation alone, and call it from the "
                   "async one",
                   text.get());
    }
    return false;
  }
  const TypePlan* plan = plan_for(fun);
  if (plan == nullptr) {
    return false;
  }
  bool fun_in_tree = plan->kind != Kind::Identity && plan->kind != Kind::Function &&
                     !is_function_dispatcher(fun);
  Owned table;
  if (PyDict_GetItemWithError(options, names.share) == Py_False) {
    table = new_table(options, bounds);
  } else if (fun_in_tree && !PyMethod_Check(fun)) {
    table = table_for_object(fun, options, bounds);
  } else {
    table = table_for(table_key(fun), options, bounds);
  }
  if (!table) {
    return false;
  }
  if (self->fun != nullptr) {  // what ran may have been here too
    PyErr_SetString(PyExc_RuntimeError, "this autojit dispatcher has its function");
    return false;
  }
  self->admissions = new Admissions;
  self->fun = Py_NewRef(fun);
  self->options = Py_NewRef(options);
  self->fun_in_tree = fun_in_tree;
  self->keyword_order_matters = takes_any_keyword(fun);
  self->table = reinterpret_cast<Table*>(table.release());
  return copy_attributes(self);
}

PyObject* new_dispatcher() {
  PyObject* object = DispatcherType.tp_alloc(&DispatcherType, 0);
  if (object != nullptr) {
    as_dispatcher(object)->vectorcall =
        statistics.is_on ? guarded<counted_vectorcall> : guarded<dispatcher_vectorcall>;
  }
  return object;
}

PyObject* dispatcher_new(PyTypeObject* /*type*/, PyObject* args, PyObject* kwargs) {
  PyObject* fun = nullptr;
  PyObject* options = nullptr;
  Bounds bounds{};
  if (kwargs != nullptr && PyDict_GET_SIZE(kwargs) != 0) {
    PyErr_SetString(PyExc_TypeError, "Dispatcher takes no keyword arguments");
    return nullptr;
  }
  if (PyArg_ParseTuple(args, "OOnn:Dispatcher", &fun, &options, &bounds.size,
                       &bounds.bytes) == 0) {
    return nullptr;
  }
  Owned object = Owned::steal(new_dispatcher());
  return object && fill(as_dispatcher(object.get()), fun, options, bounds)
             ? object.release()
             : nullptr;
}

PyObject* dispatcher_empty(PyObject* /*type*/, PyObject* /*args*/) {
  return new_dispatcher();
}

// The function of a bound method and its instance come one by one.
PyObject* dispatcher_setstate(PyObject* object, PyObject* state) {
  PyObject* fun = nullptr;
  PyObject* instance = nullptr;
  PyObject* options = nullptr;
  PyObject* attributes = nullptr;
  Bounds bounds{};
  if (!PyTuple_Check(state)) {
    PyErr_SetString(PyExc_TypeError, "the state of a dispatcher is a tuple");
    return nullptr;
  }
  if (PyArg_ParseTuple(state, "OO!OnnO!:__setstate__", &fun, &PyTuple_Type, &instance,
                       &options, &bounds.size, &bounds.bytes, &PyDict_Type,
                       &attributes) == 0) {
    return nullptr;
  }
  Owned bound = Owned::steal(PyTuple_GET_SIZE(instance) == 0
                                 ? Py_NewRef(fun)
                                 : PyMethod_New(fun, PyTuple_GET_ITEM(instance, 0)));
  Dispatcher* self = as_dispatcher(object);
  if (!bound) {
    return nullptr;
  }
  if (wraps(bound.get(), self)) {
    PyErr_SetString(PyExc_ValueError, "an autojit dispatcher can't wrap itself");
    return nullptr;
  }
  if (!fill(self, bound.get(), options, bounds)) {
    return nullptr;
  }
  if (PyDict_GET_SIZE(attributes) != 0) {
    PyObject* copy = PyDict_Copy(attributes);
    if (copy == nullptr) {
      return nullptr;
    }
    Owned old = Owned::steal(std::exchange(self->dict, copy));
  }
  Py_RETURN_NONE;
}

int dispatcher_traverse(PyObject* object, visitproc visit, void* arg) {
  Dispatcher* self = as_dispatcher(object);
  Py_VISIT(self->fun);
  Py_VISIT(self->options);
  Py_VISIT(self->dict);
  Py_VISIT(self->table);
  Py_VISIT(self->seen);
  return 0;
}

int dispatcher_clear(PyObject* object) {
  Dispatcher* self = as_dispatcher(object);
  Py_CLEAR(self->fun);
  Py_CLEAR(self->options);
  Py_CLEAR(self->dict);
  Py_CLEAR(self->seen);
  return 0;
}

void dispatcher_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  Dispatcher* self = as_dispatcher(object);
  Py_TRASHCAN_BEGIN(object, dispatcher_dealloc)  // a dispatcher of a dispatcher of …
      if (self->weakrefs != nullptr) {
    PyObject_ClearWeakRefs(object);
  }
  // What the function leads to may lead to the table, which goes if the function does.
  if (Table* table = std::exchange(self->table, nullptr); table != nullptr) {
    // The dispatcher may go because of an exception, which is not to be touched.
    const SavedError error;
    park(Owned::steal(table->object()));
  }
  dispatcher_clear(object);
  delete self->admissions;
  Py_TYPE(object)->tp_free(object);
  Py_TRASHCAN_END
}

PyObject* dispatcher_repr(PyObject* object) {
  Dispatcher* self = as_dispatcher(object);
  if (self->fun == nullptr) {
    return PyUnicode_FromString("<autojit.jit>");
  }
  Owned text = Owned::steal(safe_repr(self->fun));
  return text ? PyUnicode_FromFormat("<autojit.jit of %U>", text.get()) : nullptr;
}

PyObject* dispatcher_bind(PyObject* object, PyObject* instance, PyObject* /*owner*/) {
  return instance == nullptr || instance == Py_None ? Py_NewRef(object)
                                                    : PyMethod_New(object, instance);
}

// The table of a dispatcher, borrowed, or nullptr with an exception set: one that is
// still empty has none.
Table* table_of(PyObject* object) {
  Table* table = as_dispatcher(object)->table;
  if (table == nullptr) {
    PyErr_SetString(PyExc_ReferenceError, "this autojit dispatcher has no function");
  }
  return table;
}

PyObject* dispatcher_cache_info(PyObject* object, PyObject* /*args*/) {
  Table* table = table_of(object);
  if (table == nullptr) {
    return nullptr;
  }
  auto bound = [](std::size_t value) {
    return Owned::steal(value == 0 ? Py_NewRef(Py_None) : PyLong_FromSize_t(value));
  };
  Owned maxsize = bound(table->bounds.size);
  Owned maxbytes = bound(table->bounds.bytes);
  if (!maxsize || !maxbytes) {
    return nullptr;
  }
  return PyObject_CallFunction(
      config.cache_info, "KKKnOnO", static_cast<unsigned long long>(hits_of(*table)),
      static_cast<unsigned long long>(table->misses),
      static_cast<unsigned long long>(table->traces),
      static_cast<Py_ssize_t>(table->by_hash->size()), maxsize.get(),
      static_cast<Py_ssize_t>(table->bytes), maxbytes.get());
}

PyObject* dispatcher_specializations(PyObject* object, PyObject* /*args*/) {
  Table* table = table_of(object);
  if (table == nullptr) {
    return nullptr;
  }
  std::vector<Specialization*> all = by_use(*table);
  OwnedVector held;
  for (Specialization* one : all) {
    held.borrow(one->object());
  }
  Owned list = Owned::steal(PyList_New(0));
  for (const Specialization* one : all) {
    double seconds_of_tracing = static_cast<double>(one->tracing) * 1e-9;
    Owned info = Owned::steal(
        list ? PyObject_CallFunction(
                   config.specialization_info, "OKnddn", one->skeleton,
                   static_cast<unsigned long long>(one->hits),
                   static_cast<Py_ssize_t>(one->programs), seconds_of_tracing,
                   static_cast<double>(one->calling) * 1e-9 - seconds_of_tracing,
                   static_cast<Py_ssize_t>(one->bytes))
             : nullptr);
    if (!info || PyList_Append(list.get(), info.get()) < 0) {
      return nullptr;
    }
  }
  return list.release();
}

PyObject* dispatcher_clear_cache(PyObject* object, PyObject* /*args*/) {
  Table* table = table_of(object);
  if (table == nullptr) {
    return nullptr;
  }
  clear(table);
  table->hits = table->misses = table->traces = 0;
  Py_RETURN_NONE;
}

// --- ahead of time ---

// A method that is called with the arguments of a call, and does something else.
template <Owned (*kDo)(Dispatcher*, CallView&)>
PyObject* with_arguments(PyObject* object, PyObject* const* args, Py_ssize_t nargs,
                         PyObject* kwnames) {
  Dispatcher* self = as_dispatcher(object);
  if (!is_filled(self)) {
    return nullptr;
  }
  Owned held = Owned::borrow(object);
  CallView call = view_of(self, args, static_cast<std::size_t>(nargs), kwnames);
  call.hold();
  return kDo(self, call).release();
}

template <const char* kName>
Owned named_stage(Dispatcher* self, CallView& call) {
  static PyObject* const name = PyUnicode_InternFromString(kName);
  return stage(self, call, name);
}

constexpr char kTrace[] = "trace";
constexpr char kLower[] = "lower";
constexpr char kEvalShape[] = "eval_shape";
constexpr char kFlat[] = "flat";

// An attribute that is the function's until someone sets it here. Dispatchers of
// dispatchers are passed one by one, so that a long chain takes no stack.
PyObject* get_of_fun(PyObject* object, void* closure) {
  Owned name =
      Owned::steal(PyUnicode_InternFromString(static_cast<const char*>(closure)));
  Owned at = Owned::borrow(object);
  while (name && at && Py_IS_TYPE(at.get(), &DispatcherType)) {
    Dispatcher* self = as_dispatcher(at.get());
    PyObject* own = self->dict != nullptr
                        ? PyDict_GetItemWithError(self->dict, name.get())
                        : nullptr;
    if (own != nullptr || PyErr_Occurred() != nullptr) {
      return Py_XNewRef(own);
    }
    at = Owned::borrow(self->fun);
  }
  if (!name || !at) {
    if (name) {
      PyErr_SetObject(PyExc_AttributeError, name.get());
    }
    return nullptr;
  }
  return PyObject_GetAttr(at.get(), name.get());
}

int set_here(PyObject* object, PyObject* value, void* closure) {
  Owned dict = Owned::steal(PyObject_GenericGetDict(object, nullptr));
  if (!dict) {
    return -1;
  }
  const auto* name = static_cast<const char*>(closure);
  if (value != nullptr) {
    return PyDict_SetItemString(dict.get(), name, value);
  }
  int deleted = PyDict_DelItemString(dict.get(), name);
  if (deleted < 0 && PyErr_ExceptionMatches(PyExc_KeyError) != 0) {
    PyErr_SetString(PyExc_AttributeError, name);
  }
  return deleted;
}

// `__wrapped__` and `__signature__` are not the function's own.
PyObject* get_wrapped(PyObject* object, void* closure) {
  Dispatcher* self = as_dispatcher(object);
  const auto* name = static_cast<const char*>(closure);
  PyObject* own =
      self->dict != nullptr ? PyDict_GetItemString(self->dict, name) : nullptr;
  if (own != nullptr) {
    return Py_NewRef(own);
  }
  if (self->fun == nullptr) {
    PyErr_SetString(PyExc_AttributeError, name);
    return nullptr;
  }
  return Py_NewRef(self->fun);
}

PyObject* get_signature(PyObject* object, void* /*closure*/) {
  Dispatcher* self = as_dispatcher(object);
  PyObject* own = self->dict != nullptr
                      ? PyDict_GetItemString(self->dict, "__signature__")
                      : nullptr;
  if (own != nullptr) {
    return Py_NewRef(own);
  }
  if (self->fun == nullptr) {
    PyErr_SetString(PyExc_AttributeError, "__signature__");
    return nullptr;
  }
  Owned inspect = Owned::steal(PyImport_ImportModule("inspect"));
  if (!inspect) {
    return nullptr;
  }
  Owned get = Owned::steal(PyObject_GetAttrString(inspect.get(), "signature"));
  PyObject* signature = get ? PyObject_CallOneArg(get.get(), self->fun) : nullptr;
  if (signature == nullptr && PyErr_ExceptionMatches(PyExc_ValueError) != 0) {
    PyErr_SetString(PyExc_AttributeError, "__signature__");
  }
  return signature;
}

template <std::size_t kSize>
void* closure_of(const char (&name)[kSize]) noexcept {
  return const_cast<char*>(static_cast<const char*>(name));
}

PyGetSetDef dispatcher_getset[] = {
    {"__name__", get_of_fun, set_here, nullptr, closure_of("__name__")},
    {"__qualname__", get_of_fun, set_here, nullptr, closure_of("__qualname__")},
    {"__doc__", get_of_fun, set_here, nullptr, closure_of("__doc__")},
    {"__module__", get_of_fun, set_here, nullptr, closure_of("__module__")},
    {"__annotations__", get_of_fun, set_here, nullptr, closure_of("__annotations__")},
    {"__type_params__", get_of_fun, set_here, nullptr, closure_of("__type_params__")},
    {"__wrapped__", get_wrapped, set_here, "The function that was wrapped.",
     closure_of("__wrapped__")},
    {"__signature__", get_signature, set_here, "The signature of the function.",
     closure_of("__signature__")},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef dispatcher_members[] = {
    {"_fun", T_OBJECT, offsetof(Dispatcher, fun), READONLY, nullptr},
    {"_options", T_OBJECT, offsetof(Dispatcher, options), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyMethodDef dispatcher_methods[] = {
    {"cache_info", dispatcher_cache_info, METH_NOARGS,
     "cache_info($self, /)\n--\n\n"
     "Count what was done since the cache was last cleared, by all dispatchers of the\n"
     "same function with equal options: they share their specializations.\n\n"
     "Returns\n-------\n"
     "CacheInfo\n"
     "    A named tuple: `hits`, calls that an existing specialization served;\n"
     "    `misses`, calls that made a new one; `traces`, how often the function body\n"
     "    was traced; `currsize` and `maxsize`, the number of specializations and its\n"
     "    bound, None if there is none; `currbytes` and `maxbytes`, the same for the\n"
     "    bytes of their static parts.\n"},
    {"specializations", guarded<dispatcher_specializations>, METH_NOARGS,
     "specializations($self, /)\n--\n\n"
     "Tell what there is for each static part that calls had, the one used last "
     "first.\n"
     "\n"
     "Returns\n-------\n"
     "list of SpecializationInfo\n"
     "    Named tuples: `skeleton`, the static part; `hits`, how many calls it has "
     "served\n"
     "    after the first; `traces`, how often the function body was traced for it; "
     "\n"
     "    `trace_seconds`, how long that took, and `compile_seconds`, the rest of the\n"
     "    calls that traced: lowering, compiling and running it once; `bytes`, what "
     "its\n"
     "    static part takes.\n"},
    {"clear_cache", guarded<dispatcher_clear_cache>, METH_NOARGS,
     "clear_cache($self, /)\n--\n\nDrop all specializations, those of "
     "other dispatchers of the function too,\nand set all counts to 0."},
    {"trace", as_method(guarded<with_arguments<named_stage<kTrace>>>),
     METH_FASTCALL | METH_KEYWORDS,
     "trace($self, /, *args, **kwargs)\n--\n\n"
     "Trace the function for a call, and do not compile it.\n\n"
     "Parameters\n----------\n"
     "*args, **kwargs\n"
     "    The arguments of a call. Each array in them may be a "
     "`jax.ShapeDtypeStruct`.\n"
     "\n"
     "Returns\n-------\n"
     "Traced\n"
     "    As ``jax.jit(f).trace`` returns it, with `jaxpr`, ``lower()`` and so on. "
     "What\n"
     "    it says of arguments and results, `args_info` and `out_info`, it says in\n"
     "    objects like theirs.\n"},
    {"lower", as_method(guarded<with_arguments<named_stage<kLower>>>),
     METH_FASTCALL | METH_KEYWORDS,
     "lower($self, /, *args, **kwargs)\n--\n\n"
     "Trace the function for a call, and lower it to what can be compiled.\n\n"
     "Parameters\n----------\n"
     "*args, **kwargs\n"
     "    The arguments of a call. Each array in them may be a "
     "`jax.ShapeDtypeStruct`.\n"
     "\n"
     "Returns\n-------\n"
     "Lowered\n"
     "    As ``jax.jit(f).lower`` returns it, with ``as_text()``, ``cost_analysis()``\n"
     "    and ``compile()``. What that compiles is called with objects like those of\n"
     "    this call, and returns what the function does.\n"},
    {"eval_shape", as_method(guarded<with_arguments<named_stage<kEvalShape>>>),
     METH_FASTCALL | METH_KEYWORDS,
     "eval_shape($self, /, *args, **kwargs)\n--\n\n"
     "Tell what a call would return, without computing it.\n\n"
     "Parameters\n----------\n"
     "*args, **kwargs\n"
     "    The arguments of a call. Each array in them may be a "
     "`jax.ShapeDtypeStruct`.\n"
     "\n"
     "Returns\n-------\n"
     "object\n"
     "    What the function returns, with a `jax.ShapeDtypeStruct` for each array.\n"},
    {"flat", as_method(guarded<with_arguments<named_stage<kFlat>>>),
     METH_FASTCALL | METH_KEYWORDS,
     "flat($self, /, *args, **kwargs)\n--\n\n"
     "Make of a call a function of arrays alone, for what in JAX wants no objects.\n\n"
     "Parameters\n----------\n"
     "*args, **kwargs\n"
     "    The arguments of a call. Each array in them may be a "
     "`jax.ShapeDtypeStruct`.\n"
     "\n"
     "Returns\n-------\n"
     "Flat\n"
     "    A named tuple: `fun`, compiled by ``jax.jit``, of the arrays of the call, "
     "one\n"
     "    argument each, to a tuple of those of the result; `leaves`, the arrays of "
     "this\n"
     "    call; and ``unflatten(arrays)``, which makes the result of what `fun` "
     "returns.\n"},
    {"explain", as_method(guarded<with_arguments<explain>>),
     METH_FASTCALL | METH_KEYWORDS,
     "explain($self, /, *args, **kwargs)\n--\n\n"
     "Say why a call would be traced.\n\n"
     "Parameters\n----------\n"
     "*args, **kwargs\n"
     "    The arguments of a call. Each array in them may be a "
     "`jax.ShapeDtypeStruct`.\n"
     "\n"
     "Returns\n-------\n"
     "str or None\n"
     "    What differs from the nearest of the calls that were traced, with its path,\n"
     "    on one line: ``args[1].lr: was 0.1, now 0.2``. None if the call would be\n"
     "    served without a trace. Settings of JAX, such as x64, are not looked at.\n"},
    {"_take_apart", as_method(guarded<with_arguments<take_apart>>),
     METH_FASTCALL | METH_KEYWORDS,
     "_take_apart($self, /, *args, **kwargs)\n--\n\n"
     "Take a call apart into its skeleton and a tuple of its leaves."},
    {"_empty", dispatcher_empty, METH_NOARGS | METH_STATIC,
     "_empty()\n--\n\nMake one without a function, for `__setstate__`."},
    {"__setstate__", guarded<dispatcher_setstate>, METH_O,
     "__setstate__($self, state, /)\n--\n\nGive an empty one its parts: a function, an "
     "empty tuple\nor one with the instance that it is bound to, options, maxsize, "
     "maxbytes and attributes."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,
     "See `typing.Generic`: the parameters and the result of the function."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool init_dispatcher() {
  is_function_dispatcher = [](PyObject* object) {
    // Of one that is not filled yet, nothing is known.
    return Py_IS_TYPE(object, &DispatcherType) &&
           as_dispatcher(object)->fun != nullptr && !as_dispatcher(object)->fun_in_tree;
  };
  parts_of_dispatcher = [](PyObject* object) {
    const Dispatcher* self = as_dispatcher(object);
    return self->fun != nullptr ? PyTuple_Pack(2, self->fun, self->options)
                                : Py_NewRef(Py_None);
  };
  return PyType_Ready(&DispatcherType) == 0;
}

PyTypeObject DispatcherType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.Dispatcher",
    .tp_basicsize = sizeof(Dispatcher),
    .tp_dealloc = dispatcher_dealloc,
    .tp_vectorcall_offset = offsetof(Dispatcher, vectorcall),
    .tp_repr = dispatcher_repr,
    .tp_call = PyVectorcall_Call,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_doc =
        "A function that JAX compiles, whatever its arguments are.\n\n"
        "Made by ``autojit.jit``.",
    .tp_traverse = dispatcher_traverse,
    .tp_clear = dispatcher_clear,
    .tp_weaklistoffset = offsetof(Dispatcher, weakrefs),
    .tp_methods = dispatcher_methods,
    .tp_members = dispatcher_members,
    .tp_getset = dispatcher_getset,
    .tp_descr_get = dispatcher_bind,
    .tp_dictoffset = offsetof(Dispatcher, dict),
    .tp_new = guarded<dispatcher_new>,
};

}  // namespace autojit
