#include "objects/function_state.h"

#include <algorithm>
#include <array>
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
  int import_name = -1;
  int extended_arg = -1;
};
Opcodes opcodes;

// What can read all that its caller's code does not name. Borrowed from their modules.
std::set<PyObject*> read_anything;

// `os.environ`.
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

// Methods that a trace has no reason to call.
constexpr std::array<std::string_view, 15> kNotCalled = {
    "__repr__",          "__str__",      "__format__",   "__reduce__",
    "__reduce_ex__",     "__getstate__", "__setstate__", "__getnewargs__",
    "__getnewargs_ex__", "__del__",      "__copy__",     "__deepcopy__",
    "__init_subclass__", "__set_name__", "__prepare__"};

template <std::size_t kSize>
bool is_among(const std::array<std::string_view, kSize>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// More than this is not looked at.
constexpr std::size_t kMostFunctions = 1U << 16U;
constexpr std::size_t kMostReads = 1U << 20U;

bool refuse(const char* text) {
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

// Whether a name is one that Python gives things, `__name__`, or that is no string.
bool is_special(PyObject* name) {
  return !PyUnicode_Check(name) ||
         (PyUnicode_GET_LENGTH(name) > 1 && PyUnicode_READ_CHAR(name, 0) == '_' &&
          PyUnicode_READ_CHAR(name, 1) == '_');
}

// How many names a dict has, but for those that Python adds to modules and classes.
std::size_t count_names(PyObject* dict) {
  std::size_t count = 0;
  Py_ssize_t position = 0;
  PyObject* name = nullptr;
  while (PyDict_Next(dict, &position, &name, nullptr) != 0) {
    count += is_special(name) ? 0U : 1U;
  }
  return count;
}

// Whether a file is one of the standard library or of what is installed.
bool is_librarys_file(PyObject* file) {
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

// The same for a module, by its dict: one without a file is builtin or a namespace, or
// the session itself.
bool is_librarys_module(PyObject* dict) {
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

bool is_librarys_class(PyTypeObject* type) {
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
      {"IMPORT_NAME", &opcodes.import_name},
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
  environment = os ? PyObject_GetAttrString(os.get(), "environ") : nullptr;
  return environment != nullptr;
}

PyObject* environment_variables() { return environment; }

bool is_librarys(PyObject* function) {
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
  return is_librarys_file(code->co_filename);
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
    return Owned::borrow(PyDict_GetItemWithError(holder, name));
  }
  if (PyDict_Check(holder)) {
    return Owned::steal(PyLong_FromSize_t(count_names(holder)));
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

void Reads::note(PyObject* holder, PyObject* name, Read::As as) {
  if (noted_.emplace(holder, name).second) {
    held_.borrow(name);  // its holder may lose it
    reads_.push_back({holder, name, as, is_lenient_});
  }
}

bool Reads::add(PyObject* function, bool by_value) {
  if (!functions_.insert(function).second) {
    return true;
  }
  if (functions_.size() > kMostFunctions) {
    return refuse("a function that calls too much");
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
      return refuse("a function that holds too much");
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
    names_.emplace_back(name, is_lenient_);
    if (view(name) == "getenv") {
      add_name(names.environ, false);
    }
    computes_names_ = computes_names_ || is_among(kComputeNames, view(name));
  }
}

// Names are interned, and held by the code that they are in.
bool Reads::add_code(PyObject* code, PyObject* globals, bool is_librarys) {
  auto* object = reinterpret_cast<PyCodeObject*>(code);
  Owned bytes = Owned::steal(PyCode_GetCode(object));
  if (!bytes) {
    return false;
  }
  Py_ssize_t count = PyTuple_GET_SIZE(object->co_names);
  for (Py_ssize_t i = 0; i < count; ++i) {
    add_name(PyTuple_GET_ITEM(object->co_names, i), is_librarys);
    if (view(PyTuple_GET_ITEM(object->co_names, i)) == "__globals__" && !is_lenient_) {
      return refuse("a function that reads what can't be told");
    }
  }
  PyObject* builtins = PyEval_GetBuiltins();
  const auto* units =
      reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(bytes.get()));
  Py_ssize_t argument = 0;
  for (Py_ssize_t i = 0; i + 1 < PyBytes_GET_SIZE(bytes.get()); i += 2) {
    int opcode = units[i];
    argument = (argument << 8) | units[i + 1];
    if (opcode == opcodes.extended_arg) {
      continue;
    }
    Py_ssize_t place = std::exchange(argument, 0);
    bool is_global = opcode == opcodes.load_global || opcode == opcodes.load_name ||
                     opcode == opcodes.load_from_dict_or_globals;
    if (opcode == opcodes.load_global) {
      place >>= 1;  // the lowest bit says whether it is for a call
    }
    if (place >= count) {
      continue;
    }
    PyObject* name = PyTuple_GET_ITEM(object->co_names, place);
    if (is_global) {
      note(globals, name, is_librarys ? Read::As::Librarys : Read::As::Content);
      if (PyDict_GetItemWithError(globals, name) == nullptr &&
          PyDict_GetItemWithError(builtins, name) != nullptr) {
        note(builtins, name, Read::As::Librarys);
      }
    } else if (opcode == opcodes.import_name && !add_import(name, globals)) {
      return false;
    }
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

// What code imports when it runs: under its full name, and as a part of each package
// that its module is in.
bool Reads::add_import(PyObject* name, PyObject* globals) {
  PyObject* modules = PyImport_GetModuleDict();
  std::string_view imported = view(name);
  std::vector<std::string> full{std::string(imported),
                                std::string(imported.substr(0, imported.find('.')))};
  PyObject* package = PyDict_GetItemString(globals, "__package__");
  std::string_view at = package != nullptr ? view(package) : std::string_view();
  while (!at.empty()) {
    full.push_back(std::string(at) + (imported.empty() ? "" : "." + full[0]));
    std::size_t dot = at.rfind('.');
    at = dot == std::string_view::npos ? std::string_view() : at.substr(0, dot);
  }
  for (const std::string& one : full) {
    PyObject* string =
        PyUnicode_FromStringAndSize(one.data(), static_cast<Py_ssize_t>(one.size()));
    if (string == nullptr) {
      return false;
    }
    PyUnicode_InternInPlace(&string);
    Owned interned = Owned::steal(string);
    note(modules, string, Read::As::Content);
  }
  return true;
}

bool Reads::reach(PyObject* object) {
  if (reads_.size() > kMostReads) {
    return refuse("a function that reads too much");
  }
  if (read_anything.contains(object) && !is_lenient_) {
    return refuse("a function that reads what can't be told");
  }
  if (PyType_Check(object) && !reach_class(reinterpret_cast<PyTypeObject*>(object))) {
    return false;
  }
  if (PyModule_Check(object) && !reach_module(PyModule_GetDict(object))) {
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
    while (PyDict_Next(python::instance_dict(object), &position, nullptr, &part) != 0) {
      if (PyFunction_Check(part) && !reach_inside(part)) {
        return false;
      }
    }
  }
  return reach_class(Py_TYPE(object));
}

bool Reads::reach_module(PyObject* dict) {
  if (known_modules_.insert(dict).second) {
    held_.borrow(dict);
    bool is_librarys = dict == PyImport_GetModuleDict() || is_librarys_module(dict);
    holders_.push_back(
        {dict, is_librarys ? Read::As::Librarys : Read::As::Content, false, false, 0});
    // A package gets the modules in it as they are imported.
    if (!is_librarys && PyDict_GetItemString(dict, "__path__") == nullptr) {
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
    if (is_special(key)) {
      note(dict, key, is_method ? Read::As::Content : Read::As::Identity);
    } else if (is_of_library(type, key)) {
      bool outer = std::exchange(is_lenient_, true);
      note(dict, key, Read::As::Content);
      is_lenient_ = outer;
    }
  }
  holders_.push_back({dict, Read::As::Content, true, false, 0});
  return PyErr_Occurred() == nullptr;
}

// Whether a class is derived from one of a library that has this name.
bool Reads::is_of_library(PyTypeObject* type, PyObject* name) {
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

// Looks up in each module and class the names that have come since.
void Reads::look_up_names() {
  for (Holder& holder : holders_) {
    for (; holder.names < names_.size(); ++holder.names) {
      PyObject* name = names_[holder.names].first;
      is_lenient_ = names_[holder.names].second;
      if (PyDict_GetItemWithError(holder.dict, name) != nullptr) {
        note(holder.dict, name, holder.as);
      }
    }
    if (!computes_names_ || holder.as == Read::As::Librarys ||
        std::exchange(holder.is_whole, true)) {
      continue;
    }
    Py_ssize_t position = 0;
    PyObject* name = nullptr;
    is_lenient_ = true;
    while (PyDict_Next(holder.dict, &position, &name, nullptr) != 0) {
      if (!is_special(name)) {
        note(holder.dict, name,
             holder.is_class ? Read::As::Content : Read::As::Identity);
      }
    }
  }
}

const Read* Reads::next() {
  if (next_ == reads_.size()) {
    look_up_names();
  }
  if (next_ == reads_.size()) {
    return nullptr;
  }
  is_lenient_ = reads_[next_].is_lenient;
  return &reads_[next_++];
}

}  // namespace autojit
