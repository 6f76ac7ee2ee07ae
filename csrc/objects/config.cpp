#include "objects/config.h"

namespace autojit {

Config config;
Names names{};

namespace {

bool intern(PyObject*& place, const char* text) {
  place = PyUnicode_InternFromString(text);
  return place != nullptr;
}

}  // namespace

bool init_names() {
  return intern(names.reduce_ex, "__reduce_ex__") && intern(names.share, "share") &&
         intern(names.traced, "traced") && intern(names.reduce, "__reduce__") &&
         intern(names.getstate, "__getstate__") &&
         intern(names.setstate, "__setstate__") &&
         intern(names.getnewargs, "__getnewargs__") &&
         intern(names.getnewargs_ex, "__getnewargs_ex__") &&
         intern(names.getattribute, "__getattribute__") &&
         intern(names.dict, "__dict__") && intern(names.fields, "_fields") &&
         intern(names.dataclass_fields, "__dataclass_fields__") &&
         intern(names.attrs_fields, "__attrs_attrs__") &&
         intern(names.attr_name, "name") && intern(names.del, "__del__") &&
         intern(names.module, "__module__") && intern(names.name, "__name__") &&
         intern(names.modules, "modules") && intern(names.obj, "obj");
}

}  // namespace autojit
