#include "objects/function_state.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>
#include <string>
#include <string_view>

#include "objects/config.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "python/numpy.h"
#include "python/pointer_map.h"

namespace autojit {

namespace {

// Of the instructions that matter here; -1 for one that this CPython does not have.
struct Opcodes {
  int load_global = -1;
  int load_name = -1;
  int load_from_dict_or_globals = -1;
  int load_const = -1;
  int load_attr = -1;
  int load_method = -1;  // before CPython 3.12
  int import_name = -1;
  int import_from = -1;
  int extended_arg = -1;
  int cache = -1;  // room for what the interpreter learns
};
Opcodes opcodes;

// What can read all that its caller's code does not name. Borrowed from their modules.
std::set<PyObject*> read_anything;

// What gives environment variables. Borrowed from their modules.
std::set<PyObject*> read_environment;

// `os.environ`, and the dict behind it.
PyObject* os_environ = nullptr;
PyObject* environment = nullptr;

// Names in code that says elsewhere which attribute it reads.
constexpr std::array<std::string_view, 7> kComputeNames = {
    "getattr",  "hasattr",         "vars", "attrgetter", "methodcaller",
    "__dict__", "__getattribute__"};

// What Python keeps in a class for itself, or changes by the way.
constexpr std::array<std::string_view, 13> kOfEachClass = {"__dict__",
                                                           "__weakref__",
                                                           "__doc__",
                                                           "__module__",
                                                           "__slots__",
                                                           "__annotations__",
                                                           "_abc_impl",
                                                           "__abstractmethods__",
                                                           "__static_attributes__",
                                                           "__firstlineno__",
                                                           "__annotations_cache__",
                                                           "__annotate_func__",
                                                           "__slotnames__"};

// The same for a module.
constexpr std::array<std::string_view, 11> kOfEachModule = {
    "__builtins__", "__cached__",  "__file__",           "__loader__",
    "__name__",     "__package__", "__path__",           "__spec__",
    "__all__",      "__doc__",     "__warningregistry__"};

// Methods that a trace has no reason to call.
constexpr std::array<std::string_view, 15> kNotCalled = {
    "__init_subclass__", "__set_name__", "__prepare__",    "__repr__",
    "__str__",           "__format__",   "__reduce__",     "__reduce_ex__",
    "__getstate__",      "__setstate__", "__getnewargs__", "__getnewargs_ex__",
    "__del__",           "__copy__",     "__deepcopy__"};

template <std::size_t kSize>
bool is_among(const std::array<std::string_view, kSize>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// More than this is not looked at.
constexpr std::size_t kMostFunctions = 1U << 16U;
constexpr std::size_t kMostReads = 1U << 20U;

bool too_much(const char* text) {
  PyErr_SetString(PyExc_LookupError, text);
  return false;
}

std::string_view view(PyObject* string) {
  Py_ssize_t size = 0;
  const char* text =
      PyUnicode_Check(string) ? PyUnicode_AsUTF8AndSize(string, &size) : nullptr;
  if (text == nullptr) {
    PyErr_Clear();
    return {};
  }
  return {text, static_cast<std::size_t>(size)};
}

// Whether a name is one that Python gives things, `__name__`, or pytest each test.
bool is_special(PyObject* name) {
  if (PyBytes_CheckExact(name)) {
    return std::strcmp(PyBytes_AS_STRING(name), "PYTEST_CURRENT_TEST") == 0;
  }
  return !PyUnicode_Check(name) ||
         (PyUnicode_GET_LENGTH(name) > 1 && PyUnicode_READ_CHAR(name, 0) == '_' &&
          PyUnicode_READ_CHAR(name, 1) == '_');
}

// What stands for the names that a module or class has, in any order: but for those
// that Python gives them by the way. The values are not looked at: that would take
// time.
std::size_t sum_of_names(PyObject* dict) {
  std::size_t sum = 0;
  Py_ssize_t position = 0;
  PyObject* name = nullptr;
  while (PyDict_Next(dict, &position, &name, nullptr) != 0) {
    if (is_special(name) &&
        (!PyUnicode_CheckExact(name) || is_among(kOfEachClass, view(name)) ||
         is_among(kOfEachModule, view(name)))) {
      continue;
    }
    sum += static_cast<std::size_t>(PyObject_Hash(name)) | 1U;  // a str or bytes
  }
  return sum;
}

// The dict of the module that stands under a name, or nullptr.
PyObject* module_under(PyObject* dict, PyObject* name) {
  PyObject* value = PyDict_GetItemWithError(dict, name);
  return value != nullptr && PyModule_Check(value) ? PyModule_GetDict(value) : nullptr;
}

// Whether a file is one of the standard library or of what is installed.
bool is_installed(PyObject* file) {
  std::string_view name = view(file);
  if (name.starts_with("<frozen")) {
    return true;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(config.library_paths); ++i) {
    std::string_view path = view(PyTuple_GET_ITEM(config.library_paths, i));
    if (!path.empty() && name.starts_with(path)) {
      return true;
    }
  }
  return false;
}

// Whether `object` is what the names in `qualname` lead to, from a module through
// classes.
bool is_found(PyObject* dict, PyObject* qualname, PyObject* object) {
  Py_ssize_t size = PyUnicode_GET_LENGTH(qualname);
  if (PyUnicode_FindChar(qualname, '.', 0, size, 1) == -1) {
    return PyDict_GetItemWithError(dict, qualname) == object;
  }
  if (PyUnicode_FindChar(qualname, '<', 0, size, 1) != -1) {
    return false;  // `<locals>` are in no class
  }
  Owned dot = Owned::steal(PyUnicode_FromString("."));
  Owned path = Owned::steal(dot ? PyUnicode_Split(qualname, dot.get(), -1) : nullptr);
  if (!path) {
    return false;
  }
  PyObject* at = nullptr;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(path.get()); ++i) {
    if (at != nullptr) {
      if (!PyType_Check(at)) {
        return false;
      }
      dict = reinterpret_cast<PyTypeObject*>(at)->tp_dict;
    }
    at = dict != nullptr ? PyDict_GetItemWithError(dict, PyList_GET_ITEM(path.get(), i))
                         : nullptr;
    if (at == nullptr) {
      return false;
    }
  }
  if (Py_IS_TYPE(at, &PyClassMethod_Type) || Py_IS_TYPE(at, &PyStaticMethod_Type)) {
    Owned inside = Owned::steal(PyObject_GetAttrString(at, "__func__"));
    return inside.get() == object;
  }
  return at == object;
}

// What an object holds, if that can be had without running Python, borrowed: functions
// that a function calls may be in there.
void find_parts(PyObject* object, std::vector<PyObject*>& parts) {
  auto add_dict = [&parts](PyObject* dict) {
    Py_ssize_t position = 0;
    PyObject* value = nullptr;
    while (dict != nullptr && PyDict_CheckExact(dict) &&
           PyDict_Next(dict, &position, nullptr, &value) != 0) {
      parts.push_back(value);
    }
  };
  // Of a builtin object, which keeps them alive.
  auto add_attributes = [&](std::initializer_list<const char*> wanted) {
    for (const char* name : wanted) {
      Owned part = Owned::steal(PyObject_GetAttrString(object, name));
      parts.push_back(part.get());
      PyErr_Clear();
    }
  };
  if (PyFunction_Check(object)) {
    auto* function = reinterpret_cast<PyFunctionObject*>(object);
    parts.insert(parts.end(), {function->func_defaults, function->func_closure});
    add_dict(function->func_kwdefaults);
    add_dict(function->func_dict);
  } else if (PyCell_Check(object)) {
    parts.push_back(PyCell_GET(object));
  } else if (PyMethod_Check(object)) {
    parts.insert(parts.end(),
                 {PyMethod_GET_FUNCTION(object), PyMethod_GET_SELF(object)});
  } else if (PyTuple_CheckExact(object) || PyList_CheckExact(object)) {
    PyObject* const* items = PySequence_Fast_ITEMS(object);
    parts.insert(parts.end(), items, items + PySequence_Fast_GET_SIZE(object));
  } else if (PyDict_CheckExact(object)) {
    add_dict(object);
  } else if (Py_IS_TYPE(object, partial_type)) {
    add_attributes({"func", "args", "keywords"});
  } else if (Py_IS_TYPE(object, &PyClassMethod_Type) ||
             Py_IS_TYPE(object, &PyStaticMethod_Type)) {
    add_attributes({"__func__"});
  } else if (Py_IS_TYPE(object, &PyProperty_Type)) {
    add_attributes({"fget", "fset"});
  }
}

// The function that an object wraps, such as a compiled function, as `functools.wraps`
// says; borrowed, or nullptr.
PyObject* wrapped_by(PyObject* object) {
  PyObject* dict = python::instance_dict(object);
  PyObject* wrapped = dict != nullptr && PyDict_CheckExact(dict)
                          ? PyDict_GetItemString(dict, "__wrapped__")
                          : nullptr;
  return wrapped != nullptr && PyFunction_Check(wrapped) ? wrapped : nullptr;
}

}  // namespace

bool is_descriptor(PyObject* object) {
  return Py_IS_TYPE(object, &PyClassMethod_Type) ||
         Py_IS_TYPE(object, &PyStaticMethod_Type) ||
         Py_IS_TYPE(object, &PyProperty_Type);
}

bool init_function_state() {
  Owned module = Owned::steal(PyImport_ImportModule("opcode"));
  Owned map =
      Owned::steal(module ? PyObject_GetAttrString(module.get(), "opmap") : nullptr);
  if (!map) {
    return false;
  }
  const std::pair<const char*, int*> wanted[] = {
      {"LOAD_GLOBAL", &opcodes.load_global},
      {"LOAD_NAME", &opcodes.load_name},
      {"LOAD_FROM_DICT_OR_GLOBALS", &opcodes.load_from_dict_or_globals},
      {"LOAD_CONST", &opcodes.load_const},
      {"LOAD_ATTR", &opcodes.load_attr},
      {"LOAD_METHOD", &opcodes.load_method},
      {"IMPORT_NAME", &opcodes.import_name},
      {"IMPORT_FROM", &opcodes.import_from},
      {"CACHE", &opcodes.cache},
      {"EXTENDED_ARG", &opcodes.extended_arg}};
  for (auto [name, place] : wanted) {
    Owned number = Owned::steal(PyMapping_GetItemString(map.get(), name));
    *place = number ? static_cast<int>(PyLong_AsLong(number.get())) : -1;
    PyErr_Clear();
  }
  const std::pair<const char*, const char*> anything[] = {
      {"builtins", "eval"},           {"builtins", "exec"},
      {"builtins", "globals"},        {"builtins", "__import__"},
      {"importlib", "import_module"}, {"sys", "_getframe"}};
  for (auto [home, name] : anything) {
    Owned of = Owned::steal(PyImport_ImportModule(home));
    PyObject* function = of ? PyObject_GetAttrString(of.get(), name) : nullptr;
    if (function == nullptr) {
      return false;
    }
    read_anything.insert(function);
  }
  Owned os = Owned::steal(PyImport_ImportModule("os"));
  os_environ = os ? PyObject_GetAttrString(os.get(), "environ") : nullptr;
  environment =
      os_environ != nullptr ? PyObject_GetAttrString(os_environ, "_data") : nullptr;
  if (environment == nullptr || !PyDict_CheckExact(environment)) {
    Py_CLEAR(environment);  // an implementation that keeps it elsewhere
    PyErr_Clear();
  }
  for (const char* name : {"environ", "environb", "getenv", "getenvb"}) {
    PyObject* reader = os ? PyObject_GetAttrString(os.get(), name) : nullptr;
    PyErr_Clear();  // not on each system
    read_environment.insert(reader);
  }
  return os_environ != nullptr;
}

bool is_named_function(PyObject* object) {
  auto* function = reinterpret_cast<PyFunctionObject*>(object);
  PyObject* name = function->func_module;
  if (name == nullptr || !PyUnicode_CheckExact(name) ||
      PyUnicode_CompareWithASCIIString(name, "__main__") == 0) {
    return false;
  }
  PyObject* modules = PyImport_GetModuleDict();  // as all that follows, borrowed
  PyObject* module = PyDict_GetItemWithError(modules, name);
  bool named = module != nullptr && PyModule_Check(module) &&
               PyModule_GetDict(module) == function->func_globals &&
               is_found(function->func_globals, function->func_qualname, object);
  PyErr_Clear();
  return named;
}

bool is_local_class(PyObject* object) {
  if (!PyType_Check(object) ||
      (reinterpret_cast<PyTypeObject*>(object)->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) {
    return false;
  }
  PyObject* name = reinterpret_cast<PyHeapTypeObject*>(object)->ht_qualname;
  return PyUnicode_FindChar(name, '<', 0, PyUnicode_GET_LENGTH(name), 1) >= 0;
}

PyObject* call_of(PyTypeObject* type) {
  static PyObject* const call = PyUnicode_InternFromString("__call__");
  PyObject* method = python::type_lookup(type, call);
  return method != nullptr && PyFunction_Check(method) ? method : nullptr;
}

PyObject* function_of(PyObject* fun) {
  for (int step = 0; fun != nullptr && step < 100; ++step) {
    if (PyFunction_Check(fun)) {
      return fun;
    }
    if (PyMethod_Check(fun)) {
      fun = PyMethod_GET_FUNCTION(fun);
    } else if (Py_IS_TYPE(fun, partial_type)) {
      Owned inner = Owned::steal(PyObject_GetAttrString(fun, "func"));
      PyErr_Clear();
      fun = inner.get();  // the partial holds it
    } else {
      // Not what an instance has by that name, which is not what a call runs.
      return call_of(Py_TYPE(fun));
    }
  }
  return nullptr;
}

std::array<PyObject*, kStateParts> state_of(PyObject* object, PyObject* annotations) {
  auto* function = reinterpret_cast<PyFunctionObject*>(object);
  std::array<PyObject*, kStateParts> state = {
      function->func_code,     function->func_globals,
      function->func_defaults, function->func_kwdefaults,
      function->func_dict,     function->func_name,
      function->func_qualname, function->func_module,
      function->func_doc,      annotations};
  for (PyObject*& part : state) {
    // To look at an attribute may make an empty dict.
    if (part != nullptr && part != function->func_globals && PyDict_CheckExact(part) &&
        PyDict_GET_SIZE(part) == 0) {
      part = nullptr;
    }
  }
  return state;
}

PyObject* part_of_builtin(PyObject* object, const char* name) {
  if (std::strcmp(name, ".__dict__") == 0) {
    PyObject* dict = python::instance_dict(object);
    return Py_NewRef(has_attributes(dict) ? dict : Py_None);
  }
  return PyObject_GetAttrString(object, name + 1);
}

namespace {

// Whether it makes a difference which of equal objects one is.
bool has_identity(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  return object != Py_None && type != &PyBool_Type && type != &PyLong_Type &&
         type != &PyFloat_Type && type != &PyComplex_Type && type != &PyUnicode_Type &&
         type != &PyBytes_Type && type != &PyCode_Type &&
         !numpy::is_scalar_type(type) && !numpy::is_dtype_type(type);
}

// A walk by way of `tp_traverse`.
struct Held {
  std::vector<PyObject*>& objects;
  PointerMap seen;

  static int add(PyObject* object, void* self) {
    auto* held = static_cast<Held*>(self);
    bool inserted = false;
    if (object != nullptr && has_identity(object) && !PyType_Check(object) &&
        !PyModule_Check(object)) {
      held->seen.get_or_insert(object, 0, inserted);
    }
    if (inserted) {
      held->objects.push_back(object);
    }
    return 0;
  }
};

}  // namespace

bool held_by(PyObject* function, std::vector<PyObject*>& objects) {
  objects.clear();
  Held held{objects, {}};
  PyObject* at = function;
  for (std::size_t next = 0; at != nullptr;
       at = next < objects.size() ? objects[next++] : nullptr) {
    if (objects.size() > kMostFunctions) {
      return false;
    }
    if (PyFunction_Check(at)) {  // not its globals
      auto* one = reinterpret_cast<PyFunctionObject*>(at);
      for (PyObject* part : {one->func_closure, one->func_defaults,
                             one->func_kwdefaults, one->func_dict}) {
        Held::add(part, &held);
      }
    } else if (traverseproc traverse = Py_TYPE(at)->tp_traverse; traverse != nullptr) {
      traverse(at, Held::add, &held);
    }
  }
  return true;
}

Owned read(PyObject* holder, PyObject* name) {
  if (PyFunction_Check(holder) && name != nullptr) {
    return Owned::borrow(PyFunction_GET_CODE(holder));
  }
  if (name != nullptr) {
    Owned value = Owned::borrow(PyDict_GetItemWithError(holder, name));
    return value && is_function_dispatcher(value.get())
               ? Owned::steal(parts_of_dispatcher(value.get()))
               : std::move(value);
  }
  if (PyDict_Check(holder)) {
    return Owned::steal(PyLong_FromSize_t(sum_of_names(holder)));
  }
  if (PyType_Check(holder)) {
    return Owned::borrow(reinterpret_cast<PyTypeObject*>(holder)->tp_mro);
  }
  std::vector<PyObject*> parts;
  if (PyFunction_Check(holder)) {
    auto* function = reinterpret_cast<PyFunctionObject*>(holder);
    PyObject* dict =
        has_attributes(function->func_dict) ? function->func_dict : nullptr;
    parts = {function->func_defaults, function->func_kwdefaults, dict};
    PyObject* cells = function->func_closure;
    for (Py_ssize_t i = 0; cells != nullptr && i < PyTuple_GET_SIZE(cells); ++i) {
      parts.push_back(PyCell_GET(PyTuple_GET_ITEM(cells, i)));
    }
    if (std::all_of(parts.begin(), parts.end(),
                    [](PyObject* part) { return part == nullptr; })) {
      return Owned::borrow(Py_None);
    }
  } else {
    find_parts(holder, parts);
  }
  std::replace(parts.begin(), parts.end(), static_cast<PyObject*>(nullptr), Py_None);
  return tuple_of(parts.data(), parts.size());
}

bool Reads::is_librarys_file(PyObject* file) const {
  return is_installed(file) && (home_.empty() || !view(file).starts_with(home_));
}

bool Reads::is_librarys(PyObject* function) const {
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
  return is_librarys_file(code->co_filename);
}

// The same for a module, by its dict: one without a file is builtin or a namespace, or
// the session itself.
bool Reads::is_librarys_module(PyObject* dict) const {
  PyObject* file = PyDict_GetItemString(dict, "__file__");
  if (file != nullptr) {
    return is_librarys_file(file);
  }
  PyObject* name = PyDict_GetItemWithError(dict, names.name);
  PyErr_Clear();
  if (name == nullptr) {
    return false;
  }
  PyObject* builtins = PySys_GetObject("builtin_module_names");  // borrowed
  int found = builtins != nullptr ? PySequence_Contains(builtins, name) : 0;
  PyErr_Clear();
  return found == 1;
}

bool Reads::is_librarys_class(PyTypeObject* type) const {
  if ((type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) {
    return true;
  }
  PyObject* module = PyDict_GetItemWithError(type->tp_dict, names.module);
  PyObject* at = module != nullptr && PyUnicode_CheckExact(module)
                     ? PyDict_GetItemWithError(PyImport_GetModuleDict(), module)
                     : nullptr;
  PyErr_Clear();
  return at != nullptr && PyModule_Check(at) &&
         is_librarys_module(PyModule_GetDict(at));
}

void Reads::begin_wrapped(PyObject* function) {
  is_wrapped_ = true;
  if (function == nullptr) {
    return;
  }
  PyObject* name = reinterpret_cast<PyFunctionObject*>(function)->func_module;
  std::string root(name != nullptr ? view(name) : std::string_view());
  root.resize(std::min(root.find('.'), root.size()));
  PyObject* module = PyDict_GetItemString(PyImport_GetModuleDict(), root.c_str());
  PyObject* dict =
      module != nullptr && PyModule_Check(module) ? PyModule_GetDict(module) : nullptr;
  PyObject* file = dict != nullptr ? PyDict_GetItemString(dict, "__file__") : nullptr;
  bool is_namespace = file == nullptr;  // then what is beside the function
  if (is_namespace) {
    auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
    file = code->co_filename;
  }
  if (!is_installed(file)) {
    return;
  }
  home_ = view(file);
  if (is_namespace || PyDict_GetItemString(dict, "__path__") != nullptr) {
    home_.resize(home_.find_last_of("/\\") + 1);
  }
}

// False with a refusal set, or true if there can be none.
bool Reads::refuse(const char* text) const {
  if (is_lenient_ || is_wrapped_) {
    return true;
  }
  return too_much(text);
}

// Each variable of `os.environ`, which is a library's and changes all the same. Not the
// one that pytest sets for each test.
void Reads::reach_environment() {
  if (environment == nullptr || !known_modules_.insert(environment).second) {
    return;
  }
  note(environment, nullptr, Read::As::Content);
  Py_ssize_t position = 0;
  PyObject* name = nullptr;
  while (PyDict_Next(environment, &position, &name, nullptr) != 0) {
    if (!is_special(name)) {
      held_.borrow(name);
      note(environment, name, Read::As::Content);
    }
  }
}

Sieve::Sieve(PyObject* dict)
    : bits_(std::bit_ceil(static_cast<std::size_t>(PyDict_GET_SIZE(dict)) / 8 + 1)) {
  Py_ssize_t position = 0;
  PyObject* name = nullptr;
  while (PyDict_Next(dict, &position, &name, nullptr) != 0) {
    if (!PyUnicode_CheckExact(name)) {  // equal to it may be what it likes
      std::fill(bits_.begin(), bits_.end(), ~std::uint64_t{0});
      return;
    }
    std::size_t place = place_of(PyObject_Hash(name));
    bits_[place / kBits] |= std::uint64_t{1} << (place % kBits);
  }
}

void Reads::note(PyObject* holder, PyObject* name, Read::As as) {
  if (noted_.insert({holder, name, as == Read::As::Identity}).second) {
    held_.borrow(holder);
    held_.borrow(name);  // which the holder may lose
    reads_.push_back({holder, name, as, is_lenient_});
  }
}

// What stands under a name, for any use that code may make of it.
bool Reads::note_and_reach(PyObject* dict, PyObject* name, Read::As as) {
  note(dict, name, as);
  PyObject* module = module_under(dict, name);
  return module == nullptr || reach_module(module);
}

bool Reads::add(PyObject* function, bool by_value) {
  if (!functions_.insert(function).second) {
    return true;
  }
  if (functions_.size() > kMostFunctions) {
    return too_much("a function that calls too much");
  }
  PyObject* code = PyFunction_GET_CODE(function);
  PyObject* globals = PyFunction_GET_GLOBALS(function);
  for (PyObject* object : {function, code, globals}) {
    held_.borrow(object);
  }
  if (by_value) {
    return add_code(code, globals, is_librarys(function));
  }
  if (is_librarys(function)) {
    return true;
  }
  note(function, names.name, Read::As::Identity);
  note(function, nullptr, Read::As::Content);
  return add_code(code, globals, false);
}

bool Reads::reach_inside(PyObject* object) {
  if (is_descriptor(object)) {
    held_.borrow(object);
    note(object, nullptr, Read::As::Content);
    return true;
  }
  // What it holds itself is a library's, and fixed.
  std::vector<PyObject*> objects{object};  // no Python runs: they stay
  std::set<PyObject*> seen;
  while (!objects.empty()) {
    PyObject* at = objects.back();
    objects.pop_back();
    if (at == nullptr || !seen.insert(at).second) {
      continue;
    }
    if (seen.size() > kMostFunctions) {
      return too_much("a function that holds too much");
    }
    if (!PyFunction_Check(at) || is_librarys(at)) {
      find_parts(at, objects);
    } else if (!add(at, false)) {
      return false;
    }
  }
  return true;
}

void Reads::add_name(PyObject* name, bool is_librarys) {
  if (!is_librarys && known_names_.emplace(name, is_lenient_).second) {
    names_.push_back({name, PyObject_Hash(name), is_lenient_});
    computes_names_ = computes_names_ || is_among(kComputeNames, view(name));
  }
}

void Reads::add_global(PyObject* globals, PyObject* name, bool is_librarys) {
  note(globals, name, is_librarys ? Read::As::Librarys : Read::As::Content);
  if (PyDict_GetItemWithError(globals, name) != nullptr) {
    return;
  }
  PyObject* builtins = PyEval_GetBuiltins();
  PyObject* builtin = PyDict_GetItemWithError(builtins, name);
  if (builtin != nullptr) {
    note(builtins, name, Read::As::Librarys);
    if (is_wrapped_ && read_anything.contains(builtin)) {
      holders_.push_back(
          {globals, Read::As::Identity, false, false, names_.size(), Sieve(globals)});
      computes_names_ = true;
    }
  }
}

// What the instructions of code name. Of a module of which they take an attribute at
// once, as in `module.name`, nothing else is read; one that they use in any other way
// may be asked for anything.
bool Reads::add_instructions(PyCodeObject* code, PyObject* globals, bool is_librarys) {
  Owned bytes = Owned::steal(PyCode_GetCode(code));
  if (!bytes) {
    return false;
  }
  const auto* units =
      reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(bytes.get()));
  auto in = [](PyObject* tuple, Py_ssize_t place) {
    return place < PyTuple_GET_SIZE(tuple) ? PyTuple_GET_ITEM(tuple, place) : nullptr;
  };
  Py_ssize_t argument = 0;
  PyObject* loaded = nullptr;   // the dict of a module that is on top of the stack
  PyObject* constants[2] = {};  // loaded by the last two instructions, the last first
  std::vector<PyObject*> imported;  // what the last import was about
  bool is_used = true;              // it has been seen what becomes of that
  for (Py_ssize_t i = 0; i + 1 < PyBytes_GET_SIZE(bytes.get()); i += 2) {
    int opcode = units[i];
    argument = (argument << 8) | units[i + 1];
    if (opcode == opcodes.extended_arg) {
      continue;
    }
    Py_ssize_t place = std::exchange(argument, 0);
    if (opcode == opcodes.cache) {
      continue;
    }
    // The lowest bit says whether it is for a call.
    if (opcode == opcodes.load_global ||
        (PY_VERSION_HEX >= 0x030C0000 && opcode == opcodes.load_attr)) {
      place >>= 1;
    }
    PyObject* name = in(code->co_names, place);
    PyObject* fromlist = constants[0];
    PyObject* level = std::exchange(constants[1], constants[0]);
    constants[0] = opcode == opcodes.load_const ? in(code->co_consts, place) : nullptr;
    PyObject* module = std::exchange(loaded, nullptr);
    bool is_attribute = opcode == opcodes.load_attr || opcode == opcodes.load_method;
    if (module != nullptr && is_attribute) {
      note(module, name, kind_of(module));
      loaded = module_under(module, name);
      continue;
    }
    if (module != nullptr && !reach_module(module)) {
      return false;
    }
    bool takes_name = opcode == opcodes.import_from;
    for (PyObject* one : imported) {
      if (takes_name && !note_and_reach(one, name, kind_of(one))) {
        return false;
      }
    }
    // `import a.b` gives the first.
    if (!std::exchange(is_used, true) && !takes_name && !imported.empty() &&
        !reach_module(imported.front())) {
      return false;
    }
    if (opcode == opcodes.load_global || opcode == opcodes.load_name ||
        opcode == opcodes.load_from_dict_or_globals) {
      add_global(globals, name, is_librarys);
      loaded = is_librarys ? nullptr : module_under(globals, name);
    } else if (opcode == opcodes.import_name) {
      bool is_known = level != nullptr && PyLong_CheckExact(level);
      imported.clear();
      is_used = false;
      if (!add_import(name, globals, is_known ? PyLong_AsLong(level) : -1,
                      fromlist != Py_None, imported)) {
        return false;
      }
    }
  }
  return true;
}

// Names are interned, and held by the code that they are in.
bool Reads::add_code(PyObject* code, PyObject* globals, bool is_librarys) {
  auto* object = reinterpret_cast<PyCodeObject*>(code);
  Py_ssize_t count = PyTuple_GET_SIZE(object->co_names);
  for (Py_ssize_t i = 0; i < count; ++i) {
    add_name(PyTuple_GET_ITEM(object->co_names, i), is_librarys);
    if (view(PyTuple_GET_ITEM(object->co_names, i)) == "__globals__" &&
        !refuse("a function that reads what can't be told")) {
      return false;
    }
  }
  if (!add_instructions(object, globals, is_librarys)) {
    return false;
  }
  std::vector<PyObject*> constants{object->co_consts};
  while (!constants.empty()) {
    PyObject* constant = constants.back();
    constants.pop_back();
    if (PyTuple_CheckExact(constant)) {
      PyObject* const* items = PySequence_Fast_ITEMS(constant);
      constants.insert(constants.end(), items, items + PyTuple_GET_SIZE(constant));
    } else if (PyUnicode_CheckExact(constant) &&
               PyUnicode_IsIdentifier(constant) == 1) {
      add_name(constant, is_librarys);
    } else if (PyCode_Check(constant) && !add_code(constant, globals, is_librarys)) {
      return false;
    }
  }
  // `sys.modules[__name__]`
  if (!is_librarys && known_names_.contains({names.name, is_lenient_}) &&
      known_names_.contains({names.modules, is_lenient_}) && !reach_module(globals)) {
    return false;
  }
  return PyErr_Occurred() == nullptr;
}

// The modules that an import statement is about: that of which it takes names, or all
// on the way to one that it names, the first one first. If it is not known how far up a
// relative one begins, those of all packages that its module is in.
bool Reads::add_import(PyObject* name, PyObject* globals, long level, bool takes_names,
                       std::vector<PyObject*>& found) {
  std::string imported(view(name));
  std::vector<std::string> full;
  if (level <= 0) {
    for (std::size_t dot = takes_names ? std::string::npos : imported.find('.');
         dot != std::string::npos; dot = imported.find('.', dot + 1)) {
      full.push_back(imported.substr(0, dot));
    }
    full.push_back(imported);
  }
  PyObject* package =
      level == 0 ? nullptr : PyDict_GetItemString(globals, "__package__");
  std::string at(package != nullptr ? view(package) : std::string_view());
  for (long up = 1; !at.empty() && (level < 0 || up <= level); ++up) {
    if (level < 0 || up == level) {
      full.push_back(at);
      full.back().append(imported.empty() ? "" : ".").append(imported);
    }
    std::size_t dot = at.rfind('.');
    at.resize(dot == std::string::npos ? 0 : dot);
  }
  PyObject* modules = PyImport_GetModuleDict();
  for (const std::string& one : full) {
    PyObject* string =
        PyUnicode_FromStringAndSize(one.data(), static_cast<Py_ssize_t>(one.size()));
    if (string == nullptr) {
      return false;
    }
    PyUnicode_InternInPlace(&string);
    Owned interned = Owned::steal(string);
    note(modules, string, Read::As::Content);
    if (PyObject* module = module_under(modules, string); module != nullptr) {
      found.push_back(module);
    }
  }
  return true;
}

bool Reads::reach(PyObject* object) {
  if (reads_.size() > kMostReads) {
    return too_much("a function that reads too much");
  }
  if (read_anything.contains(object) &&
      !refuse("a function that reads what can't be told")) {
    return false;
  }
  if (read_environment.contains(object)) {
    reach_environment();
  }
  if (object == os_environ) {
    return true;
  }
  if (PyType_Check(object) && !reach_class(reinterpret_cast<PyTypeObject*>(object))) {
    return false;
  }
  // One that is read by its name was reached there, or only has its attributes taken.
  if (PyModule_Check(object) && PyModule_GetDict(object) != module_read_ &&
      !reach_module(PyModule_GetDict(object))) {
    return false;
  }
  if (object == PyImport_GetModuleDict() && !reach_module(object)) {
    return false;
  }
  if (PyFunction_Check(object)) {
    return true;
  }
  PyObject* wrapped = wrapped_by(object);
  if (wrapped != nullptr) {
    // And the rules of a derivative that JAX keeps beside it.
    Py_ssize_t position = 0;
    PyObject* part = nullptr;
    PyObject* name = nullptr;
    PyObject* dict = python::instance_dict(object);
    while (PyDict_Next(dict, &position, &name, &part) != 0) {
      if (PyFunction_Check(part)) {
        note(dict, name, Read::As::Identity);
        if (!reach_inside(part)) {
          return false;
        }
      }
    }
  }
  return reach_class(Py_TYPE(object));
}

Read::As Reads::kind_of(PyObject* module) const {
  return module == PyImport_GetModuleDict() || is_librarys_module(module)
             ? Read::As::Librarys
             : Read::As::Content;
}

bool Reads::reach_module(PyObject* dict) {
  if (known_modules_.insert(dict).second) {
    held_.borrow(dict);
    Read::As as = kind_of(dict);
    holders_.push_back({dict, as, false, false, 0, Sieve(dict)});
    // A package gets the modules in it as they are imported.
    if (as == Read::As::Content && PyDict_GetItemString(dict, "__path__") == nullptr) {
      note(dict, nullptr, Read::As::Content);
    }
  }
  return PyErr_Occurred() == nullptr;
}

// What a class of the user's has: what is special, what a library's class that it is
// derived from has too, and may call, and what has a name that is in the code. The
// classes that it is derived from are found in it.
bool Reads::reach_class(PyTypeObject* type) {
  if ((type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0 ||
      !classes_.insert(reinterpret_cast<PyObject*>(type)).second ||
      is_librarys_class(type)) {
    return PyErr_Occurred() == nullptr;
  }
  PyObject* dict = type->tp_dict;
  for (PyObject* object : {reinterpret_cast<PyObject*>(type), dict}) {
    held_.borrow(object);
    note(object, nullptr, Read::As::Content);
  }
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  while (PyDict_Next(dict, &position, &key, &value) != 0) {
    std::string_view name = view(key);
    if (name.empty() || is_among(kOfEachClass, name) || is_among(kNotCalled, name)) {
      continue;
    }
    bool is_method = PyFunction_Check(value) || is_descriptor(value);
    bool done = true;
    if (is_special(key)) {
      done =
          note_and_reach(dict, key, is_method ? Read::As::Content : Read::As::Identity);
    } else if (is_of_library(type, key)) {
      bool outer = std::exchange(is_lenient_, true);
      done = note_and_reach(dict, key, Read::As::Content);
      is_lenient_ = outer;
    }
    if (!done) {
      return false;
    }
  }
  holders_.push_back({dict, Read::As::Content, true, false, 0, Sieve(dict)});
  return PyErr_Occurred() == nullptr;
}

// Whether a class is derived from one of a library that has this name.
bool Reads::is_of_library(PyTypeObject* type, PyObject* name) const {
  for (Py_ssize_t i = 1; i + 1 < PyTuple_GET_SIZE(type->tp_mro); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(type->tp_mro, i));
    if (base->tp_dict != nullptr &&
        PyDict_GetItemWithError(base->tp_dict, name) != nullptr &&
        is_librarys_class(base)) {
      return true;
    }
  }
  return false;
}

// Looks up in each module and class the names that have come since. False with an
// exception set on failure.
bool Reads::look_up_names() {
  for (std::size_t next = 0; next < holders_.size();) {
    std::size_t i = next++;
    PyObject* dict = holders_[i].dict;  // others may come, which moves them
    Read::As as = holders_[i].as;
    for (std::size_t j = holders_[i].names; j < names_.size(); ++j) {
      PyObject* name = names_[j].object;
      is_lenient_ = names_[j].is_lenient;
      if (holders_[i].sieve.may_have(names_[j].hash) &&
          PyDict_GetItemWithError(dict, name) != nullptr &&
          !note_and_reach(dict, name, as)) {
        return false;
      }
    }
    holders_[i].names = names_.size();
    if (!computes_names_ || as == Read::As::Librarys || holders_[i].is_whole) {
      continue;
    }
    holders_[i].is_whole = true;
    Py_ssize_t position = 0;
    PyObject* name = nullptr;
    is_lenient_ = true;
    while (PyDict_Next(dict, &position, &name, nullptr) != 0) {
      if (!is_special(name)) {
        note(dict, name, holders_[i].is_class ? Read::As::Content : Read::As::Identity);
      }
    }
  }
  return true;
}

const Read* Reads::next() {
  if (next_ == reads_.size() && (!look_up_names() || next_ == reads_.size())) {
    return nullptr;
  }
  const Read& read = reads_[next_++];
  is_lenient_ = read.is_lenient;
  module_read_ = read.name != nullptr && PyDict_Check(read.holder)
                     ? module_under(read.holder, read.name)
                     : nullptr;
  return &read;
}

}  // namespace autojit
