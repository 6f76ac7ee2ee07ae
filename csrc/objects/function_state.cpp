#include "objects/function_state.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "objects/config.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "python/pointer_map.h"

namespace autojit {

namespace {

// Of the instructions that matter here; -1 for one that this CPython does not have.
struct Opcodes {
  int load_global = -1;
  int load_name = -1;
  int load_from_dict_or_globals = -1;
  int load_attr = -1;
  int load_method = -1;
  int import_name = -1;
  int extended_arg = -1;
  int cache = -1;
};
Opcodes opcodes;

// Functions that can read what their caller's code does not name.
constexpr std::array<std::string_view, 4> kReadAnything = {"eval", "exec", "globals",
                                                           "__import__"};

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

bool is_librarys_code(PyObject* function) {
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
  return is_librarys_file(code->co_filename);
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
    add_attributes({"fget"});
  }
}

// Whether a value says all there is to say of it.
bool is_data(PyObject* value) {
  const TypePlan* plan = find_plan(Py_TYPE(value));
  return plan != nullptr &&
         (plan->is_leaf || (is_value(plan->kind) && plan->kind != Kind::Function) ||
          plan->kind == Kind::Tuple || plan->kind == Kind::List ||
          plan->kind == Kind::Dict || plan->kind == Kind::Set ||
          plan->kind == Kind::FrozenSet);
}

}  // namespace

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
      {"LOAD_ATTR", &opcodes.load_attr},
      {"LOAD_METHOD", &opcodes.load_method},
      {"IMPORT_NAME", &opcodes.import_name},
      {"EXTENDED_ARG", &opcodes.extended_arg},
      {"CACHE", &opcodes.cache}};
  for (auto [name, place] : wanted) {
    Owned number = Owned::steal(PyMapping_GetItemString(map.get(), name));
    *place = number ? static_cast<int>(PyLong_AsLong(number.get())) : -1;
    PyErr_Clear();
  }
  return true;
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

// A walk by way of `tp_traverse`.
struct Held {
  std::vector<PyObject*>& objects;
  PointerMap seen;

  static int add(PyObject* object, void* self) {
    auto* held = static_cast<Held*>(self);
    bool inserted = false;
    if (object != nullptr && PyObject_IS_GC(object) != 0 && !PyType_Check(object) &&
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
  return Owned::borrow(
      PyType_Check(holder)
          ? python::type_lookup(reinterpret_cast<PyTypeObject*>(holder), name)
          : PyDict_GetItemWithError(holder, name));
}

void Reads::note(PyObject* holder, PyObject* name, std::size_t reader, bool is_bare) {
  reads_.push_back({holder, name, reader, is_bare});
}

bool Reads::add(PyObject* function, bool by_value) {
  if (by_value) {
    homes_.insert(PyFunction_GET_GLOBALS(function));
  }
  std::vector<PyObject*> objects{function};  // no Python runs: they stay
  std::set<PyObject*> seen;
  PyObject* globals = PyFunction_GET_GLOBALS(function);
  while (!objects.empty()) {
    PyObject* at = objects.back();
    objects.pop_back();
    if (at == nullptr || !seen.insert(at).second) {
      continue;
    }
    if (seen.size() > kMostFunctions) {
      return refuse("a function that holds too much");
    }
    if (!PyFunction_Check(at)) {
      find_parts(at, objects);
      continue;
    }
    bool is_others = PyFunction_GET_GLOBALS(at) != globals && is_librarys_code(at);
    if (!is_others && functions_.emplace(at, names_.size()).second) {
      find_parts(at, objects);
      if (!follow(at)) {
        return false;
      }
    }
  }
  return true;
}

// Notes what a function reads itself.
bool Reads::follow(PyObject* function) {
  PyObject* code = PyFunction_GET_CODE(function);
  PyObject* globals = PyFunction_GET_GLOBALS(function);
  for (PyObject* object : {function, code, globals}) {
    held_.borrow(object);
  }
  std::size_t reader = names_.size();
  names_.emplace_back();
  if (!add_code(code, globals, reader)) {
    return false;
  }
  for (const Name& one : names_[reader]) {
    if (one.is_global) {
      note(globals, one.name, reader, one.is_bare);
    }
  }
  // Modules and classes that it has by other ways.
  auto* at = reinterpret_cast<PyFunctionObject*>(function);
  std::vector<PyObject*> parts;
  for (PyObject* tuple : {at->func_closure, at->func_defaults}) {
    for (Py_ssize_t i = 0; tuple != nullptr && i < PyTuple_GET_SIZE(tuple); ++i) {
      PyObject* part = PyTuple_GET_ITEM(tuple, i);
      part = PyCell_Check(part) ? PyCell_GET(part) : part;
      if (part != nullptr && (PyModule_Check(part) || PyType_Check(part)) &&
          !reach(part, reader, false)) {
        return false;
      }
    }
  }
  return true;
}

bool Reads::add_code(PyObject* code, PyObject* globals, std::size_t reader) {
  auto* object = reinterpret_cast<PyCodeObject*>(code);
  Owned bytes = Owned::steal(PyCode_GetCode(object));
  if (!bytes) {
    return false;
  }
  Py_ssize_t count = PyTuple_GET_SIZE(object->co_names);
  std::vector<Name> found;
  for (Py_ssize_t i = 0; i < count; ++i) {
    found.push_back({PyTuple_GET_ITEM(object->co_names, i), false, false});
    if (view(found.back().name) == "import_module") {
      return refuse("a function that imports what can't be told");
    }
  }
  const auto* units =
      reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(bytes.get()));
  Py_ssize_t argument = 0;
  Name* last = nullptr;  // what the instruction before has loaded
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
    bool is_attribute = opcode == opcodes.load_attr || opcode == opcodes.load_method;
    if (last != nullptr && !is_attribute) {
      last->is_bare = true;
    }
    last = nullptr;
    bool is_global = opcode == opcodes.load_global || opcode == opcodes.load_name ||
                     opcode == opcodes.load_from_dict_or_globals;
    // The lowest bit says whether it is for a call.
    if (opcode == opcodes.load_global ||
        (opcode == opcodes.load_attr && PY_VERSION_HEX >= 0x030C0000)) {
      place >>= 1;
    }
    bool is_import = opcode == opcodes.import_name;
    if (place >= count || (!is_global && !is_attribute && !is_import)) {
      continue;
    }
    if (is_import) {
      if (!add_import(found[static_cast<std::size_t>(place)].name, globals, reader)) {
        return false;
      }
      continue;
    }
    last = &found[static_cast<std::size_t>(place)];
    last->is_global = last->is_global || is_global;
  }
  for (const Name& one : found) {
    bool reads_anything =
        one.is_global && std::find(kReadAnything.begin(), kReadAnything.end(),
                                   view(one.name)) != kReadAnything.end();
    if (reads_anything && PyDict_GetItemWithError(globals, one.name) == nullptr) {
      return refuse("a function that reads what can't be told");
    }
    names_[reader].push_back(one);
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object->co_consts); ++i) {
    PyObject* inner = PyTuple_GET_ITEM(object->co_consts, i);
    if (PyCode_Check(inner) && !add_code(inner, globals, reader)) {
      return false;
    }
  }
  return PyErr_Occurred() == nullptr;
}

// What code imports when it runs, under its full name, and the package that it is in.
bool Reads::add_import(PyObject* name, PyObject* globals, std::size_t reader) {
  PyObject* modules = PyImport_GetModuleDict();
  Py_ssize_t dot = PyUnicode_FindChar(name, '.', 0, PyUnicode_GET_LENGTH(name), 1);
  PyObject* package = PyDict_GetItemString(globals, "__package__");
  held_.steal(PyUnicode_Substring(name, 0, dot < 0 ? PyUnicode_GET_LENGTH(name) : dot));
  held_.steal(package != nullptr && PyUnicode_CheckExact(package)
                  ? PyUnicode_FromFormat("%U.%U", package, name)
                  : Py_NewRef(name));
  PyObject* top = held_[held_.size() - 2];
  PyObject* relative = held_[held_.size() - 1];
  if (top == nullptr || relative == nullptr) {
    return false;
  }
  for (PyObject* full : {name, top, relative}) {
    note(modules, full, reader, false);
  }
  return true;
}

bool Reads::next(PyObject*& holder, PyObject*& name) {
  while (next_ < reads_.size()) {
    const Read& at = reads_[next_];
    if (noted_.emplace(at.holder, at.name).second) {
      holder = at.holder;
      name = at.name;
      return true;
    }
    // Looked at before, for other code perhaps.
    Owned value = read(at.holder, at.name);
    if (!found(value.get())) {
      break;
    }
  }
  return false;
}

bool Reads::found(PyObject* value) {
  Read at = reads_[next_++];
  if (value == nullptr) {
    return PyErr_Occurred() == nullptr;
  }
  bool is_function =
      PyFunction_Check(value) || Py_IS_TYPE(value, &PyClassMethod_Type) ||
      Py_IS_TYPE(value, &PyStaticMethod_Type) || Py_IS_TYPE(value, &PyProperty_Type);
  return is_function ? reach_function(value, at.holder)
                     : reach(value, at.reader, at.is_bare);
}

// A function that code calls, or what holds one in a class. It may have got hold of the
// class.
bool Reads::reach_function(PyObject* value, PyObject* holder) {
  std::vector<PyObject*> inside{value};
  if (!PyFunction_Check(value)) {
    find_parts(value, inside);
  }
  PyObject* function = inside.back();
  if (!PyFunction_Check(function) ||
      (!homes_.contains(PyFunction_GET_GLOBALS(function)) &&
       is_librarys_code(function))) {
    return true;
  }
  if (!add(function, false)) {
    return false;
  }
  auto known = functions_.find(function);
  return known == functions_.end() || !PyType_Check(holder) ||
         reach(holder, known->second, false);
}

// Each name in the code that stands in a module's dict or in a class.
void Reads::reach_attributes(PyObject* holder, std::size_t reader) {
  for (const Name& one : names_[reader]) {
    if (read(holder, one.name)) {
      note(holder, one.name, reader, one.is_bare);
    }
  }
}

// All that a class of the user's has as plain data.
void Reads::reach_data(PyTypeObject* type, std::size_t reader) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_mro); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(type->tp_mro, i));
    Py_ssize_t position = 0;
    PyObject* name = nullptr;
    PyObject* value = nullptr;
    while (!is_librarys_class(base) && base->tp_dict != nullptr &&
           PyDict_Next(base->tp_dict, &position, &name, &value) != 0) {
      if (!view(name).starts_with("__") && is_data(value)) {
        note(reinterpret_cast<PyObject*>(type), name, reader, false);
      }
    }
  }
}

// Code has got hold of `value`.
bool Reads::reach(PyObject* value, std::size_t reader, bool is_bare) {
  if (reads_.size() > kMostReads) {
    return refuse("a function that reads too much");
  }
  PyObject* holder = value;
  if (PyModule_Check(value)) {
    holder = PyModule_GetDict(value);
    if (is_bare && !is_librarys_module(holder)) {
      return refuse("a function that passes a module on");
    }
  } else if (PyType_Check(value)) {
    if (is_bare) {
      reach_data(reinterpret_cast<PyTypeObject*>(value), reader);
    }
  } else {
    // An instance has what its class has.
    holder = reinterpret_cast<PyObject*>(Py_TYPE(value));
    if (is_librarys_class(Py_TYPE(value))) {
      return true;
    }
    if (is_bare) {
      reach_data(Py_TYPE(value), reader);
    }
  }
  if (reached_.emplace(holder, reader).second) {
    held_.borrow(holder);
    reach_attributes(holder, reader);
  }
  return PyErr_Occurred() == nullptr;
}

bool Reads::is_fixed(PyObject* holder) const {
  return !PyType_Check(holder) && !homes_.contains(holder) &&
         is_librarys_module(holder);
}

}  // namespace autojit
