#include "dispatch/registry.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "objects/function_state.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "skeleton/closures.h"
#include "skeleton/compare.h"
#include "skeleton/flatten.h"

namespace autojit {

namespace {

Table* as_table(PyObject* object) { return reinterpret_cast<Table*>(object); }

// The tables of one function.
struct Filed {
  Owned weak_key;              // its callback takes this away
  std::vector<Table*> tables;  // borrowed: a table that goes takes itself out
};

std::unordered_map<PyObject*, Filed>& by_function() {
  static auto* map = new std::unordered_map<PyObject*, Filed>();
  return *map;
}

// The tables of callable objects, by the hash of their skeletons; borrowed like those.
std::unordered_multimap<Py_hash_t, Table*>& by_object() {
  static auto* map = new std::unordered_multimap<Py_hash_t, Table*>();
  return *map;
}

// What a table holds may lead to the function itself, which would then never go. Hence
// the bounds, and the low one for tables that may well do so, or keep what an object
// held.
Parked parked_alone{.maxsize = 4096};
Parked parked_with_function{.maxsize = 64};

// Takes a table out of the parked ones, and gives the reference that kept it.
Owned unpark(Table* table) {
  Parked& parked = *std::exchange(table->parked, nullptr);
  (table->parked_later != nullptr ? table->parked_later->parked_earlier : parked.last) =
      table->parked_earlier;
  (table->parked_earlier != nullptr ? table->parked_earlier->parked_later
                                    : parked.first) = table->parked_later;
  table->parked_later = table->parked_earlier = nullptr;
  --parked.count;
  return Owned::steal(table->object());
}

// The function is gone: its tables are no longer shared, and not parked.
PyObject* on_key_death(PyObject* capsule, PyObject* /*weak_key*/) {
  auto found = by_function().find(
      static_cast<PyObject*>(PyCapsule_GetPointer(capsule, nullptr)));
  if (found == by_function().end()) {
    Py_RETURN_NONE;
  }
  Filed filed = std::move(found->second);
  by_function().erase(found);
  OwnedVector held;
  for (Table* table : filed.tables) {
    held.borrow(table->object());
    table->key = nullptr;
  }
  for (Table* table : filed.tables) {
    if (table->parked != nullptr) {
      (void)unpark(table);
    }
  }
  Py_RETURN_NONE;
}
PyMethodDef on_key_death_def = {"forget_function", guarded<on_key_death>, METH_O,
                                nullptr};

Filed* filed_under(PyObject* key) {
  auto found = by_function().find(key);
  return found != by_function().end() ? &found->second : nullptr;
}

// Files a new table. One whose key takes no weak references stays by itself. False with
// an exception set on failure.
bool file(Table* table, PyObject* key) {
  Filed* filed = filed_under(key);
  if (filed == nullptr) {
    if (PyType_SUPPORTS_WEAKREFS(Py_TYPE(key)) == 0) {
      return true;
    }
    Owned weak_key = python::on_death(key, on_key_death_def);
    if (!weak_key) {
      return false;
    }
    filed = &by_function().emplace(key, Filed{std::move(weak_key), {}}).first->second;
  }
  filed->tables.push_back(table);
  table->key = key;
  return true;
}

// Takes a table for another dispatcher.
Owned take(Table* table) {
  Owned taken = Owned::borrow(table->object());
  if (table->parked != nullptr) {
    (void)unpark(table);
  }
  return taken;
}

// 1 if a table has these options and bounds, 0, or -1 with an exception set. May run
// Python.
int has_options(const Table* table, PyObject* options, const Bounds& bounds) {
  return table->bounds == bounds
             ? PyObject_RichCompareBool(table->options, options, Py_EQ)
             : 0;
}

// The skeleton of a callable object, with its hash; nothing if it can't be taken apart,
// or with an exception set on failure. Runs Python.
Owned skeleton_of(PyObject* object) {
  Owned skeleton;
  {
    OwnedVector arrays;
    Program program;
    if (flatten(object, nullptr, "obj", program, arrays)) {
      skeleton = new_skeleton(std::move(program), "obj");
    }
  }
  Skeleton* like = as_skeleton(skeleton.get());
  if (skeleton && PyObject_Hash(skeleton.get()) != -1 &&
      (like->program.functions.empty() || closures_of(like) != nullptr)) {
    return skeleton;
  }
  if (PyErr_ExceptionMatches(PyExc_RecursionError) != 0 || clear_refusal()) {
    PyErr_Clear();
  }
  return {};
}

// Whether what a table holds may keep the function alive that it belongs to: one made
// inside another function may be among what it holds, and so may an object.
bool may_hold_its_function(const Table* table) {
  return table->like != nullptr ||
         (PyFunction_Check(table->key) && !is_named_function(table->key));
}

}  // namespace

Owned table_for(PyObject* key, PyObject* options, const Bounds& bounds) {
  OwnedVector candidates;  // comparing may change what is filed
  if (Filed* filed = filed_under(key); filed != nullptr) {
    for (Table* table : filed->tables) {
      candidates.borrow(table->object());
    }
  }
  for (PyObject* candidate : candidates) {
    Table* table = as_table(candidate);
    int same = has_options(table, options, bounds);
    if (same < 0) {
      return {};
    }
    if (same == 1 && table->key == key) {
      return take(table);
    }
  }
  Owned table = new_table(options, bounds);
  return table && file(as_table(table.get()), key) ? std::move(table) : Owned();
}

Owned table_for_object(PyObject* object, PyObject* options, const Bounds& bounds) {
  // An object that can't be taken apart has a table of its own.
  Owned like = skeleton_of(object);
  if (!like) {
    return PyErr_Occurred() == nullptr ? new_table(options, bounds) : Owned();
  }
  Skeleton* skeleton = as_skeleton(like.get());
  OwnedVector candidates;
  auto [begin, end] = by_object().equal_range(skeleton->hash);
  for (auto it = begin; it != end; ++it) {
    candidates.borrow(it->second->object());
  }
  for (PyObject* candidate : candidates) {
    Table* table = as_table(candidate);
    int same = has_options(table, options, bounds);
    same = same == 1 ? equal(table->like, skeleton) : same;
    if (same != 0) {
      return same < 0 ? Owned() : take(table);
    }
  }
  Owned table = new_table(options, bounds);
  if (table) {
    by_object().emplace(skeleton->hash, as_table(table.get()));
    as_table(table.get())->like = as_skeleton(like.release());
  }
  return table;
}

void unfile(Table* table) {
  if (table->like != nullptr) {
    auto [begin, end] = by_object().equal_range(table->like->hash);
    auto found = std::find_if(
        begin, end, [table](const auto& filed) { return filed.second == table; });
    if (found != end) {
      by_object().erase(found);
    }
    return;
  }
  Filed* filed = table->key != nullptr ? filed_under(table->key) : nullptr;
  if (filed == nullptr) {
    return;
  }
  std::erase(filed->tables, table);
  if (filed->tables.empty()) {
    Owned weak_key = std::move(filed->weak_key);  // dropped when the map is whole
    by_function().erase(table->key);
  }
  table->key = nullptr;
}

void park(Owned owned) {
  Table* table = as_table(owned.get());
  // What the traces of a class depend on keeps it alive.
  bool is_filed =
      table->like != nullptr || (table->key != nullptr && !is_local_class(table->key));
  if (Py_REFCNT(table) != 1 || !is_filed || table->by_hash->empty()) {
    return;
  }
  Parked& parked = may_hold_its_function(table) ? parked_with_function : parked_alone;
  table->parked = &parked;
  table->parked_earlier = parked.last;
  (parked.last != nullptr ? parked.last->parked_later : parked.first) = table;
  parked.last = as_table(owned.release());
  if (++parked.count > parked.maxsize) {
    (void)unpark(parked.first);
  }
}

}  // namespace autojit
