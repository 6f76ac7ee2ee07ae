"""Comparison of object graphs, written without autojit and without pickle.

``same_graph(a, b)`` says whether two graphs have the same structure: types, values,
order and sharing. It follows the contract of the package: tuples, frozen sets and other
values have no identity of their own; lists, dicts, sets, bytearrays, numpy arrays and
instances have one. ``walk_leaves(a)`` lists the arrays in the order of the walk.
"""

import collections
import enum
import functools
import struct
import types

import jax
import numpy as np

_ATOMS = (
    type(None),
    bool,
    int,
    str,
    bytes,
    type(Ellipsis),
    type(NotImplemented),
    range,
)
_BY_IDENTITY = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    enum.Enum,
)


def identical_leaves(a, b):
    return a is b


def any_leaves(a, b):
    """Leaves are holes: what is in them does not count."""
    return True


def equal_leaves(a, b):
    """The same shape, dtype and values; only for concrete arrays."""
    return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())


def slot_state(obj):
    """Return the filled slots of an instance as a dict, base classes first."""
    state = {}
    for cls in reversed(type(obj).__mro__):
        names = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name in ("__dict__", "__weakref__"):
                continue
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{cls.__name__.lstrip('_')}{name}"
            if hasattr(obj, name):
                state[name] = getattr(obj, name)
    return state


def instance_state(obj):
    """Return the state of an ordinary instance: slots, then ``__dict__``."""
    return {**slot_state(obj), **getattr(obj, "__dict__", {})}


def is_leaf(obj, leaf_type=jax.Array):
    return isinstance(obj, leaf_type)


def is_indivisible(obj):
    """Say whether an object is handed through whole."""
    return isinstance(obj, _BY_IDENTITY) or hasattr(type(obj), "handed_through_whole")


def _float_bits(value):
    return struct.pack("d", value)


def _children(obj):
    """Return ``(value_part, children)``, or None for what has no inside.

    Two objects of one type are the same if their value parts are equal and their
    children are the same, in order. Types in ``kinds.py`` that do not reduce to their
    state name what counts with ``comparable_state``.
    """
    if isinstance(obj, list | tuple | collections.deque):
        part = (len(obj), getattr(obj, "maxlen", None))
        return part, [*obj, *_own_state(obj)]
    if isinstance(obj, dict):
        children = [child for item in obj.items() for child in item]
        if isinstance(obj, collections.defaultdict):
            children.append(obj.default_factory)
        return len(obj), [*children, *_own_state(obj)]
    if isinstance(obj, functools.partial):
        keywords = [child for item in obj.keywords.items() for child in item]
        part = (len(obj.args), len(obj.keywords))
        return part, [obj.func, *obj.args, *keywords, *_own_state(obj)]
    if isinstance(obj, types.MethodType):
        return None, [obj.__func__, obj.__self__]
    if isinstance(obj, slice):
        return None, [obj.start, obj.stop, obj.step]
    if isinstance(obj, np.ndarray) and obj.dtype.hasobject:
        return (obj.shape, obj.dtype), obj.ravel().tolist()
    if isinstance(obj, np.ndarray | np.generic):
        order = getattr(obj, "flags", None)
        order = order is not None and order.f_contiguous and not order.c_contiguous
        return (obj.shape, repr(obj.dtype), order, obj.tobytes()), []
    if isinstance(obj, np.dtype):
        return repr(obj), []
    if isinstance(obj, bytearray):
        return bytes(obj), []
    if hasattr(type(obj), "comparable_state"):
        return None, [obj.comparable_state()]
    state = instance_state(obj)
    if state or hasattr(obj, "__dict__") or hasattr(type(obj), "__slots__"):
        return tuple(state), list(state.values())
    return None


def _own_state(obj):
    """Return the attributes of an instance of a subclass of a builtin type."""
    state = getattr(obj, "__dict__", None) or {}
    return [child for item in state.items() for child in item]


_VALUES = (tuple, frozenset, slice, types.MethodType, np.generic, np.dtype)


def same_graph(a, b, leaves=any_leaves):
    """Say whether two graphs have equal structure, values and sharing."""
    forth, back, keep = {}, {}, []

    def same(a, b):
        if is_leaf(a) or is_leaf(b):
            return is_leaf(a) and is_leaf(b) and leaves(a, b)
        if type(a) is not type(b):
            return False
        if is_indivisible(a):
            return a is b
        if type(a) in _ATOMS:
            return a == b
        if type(a) is float:
            return _float_bits(a) == _float_bits(b)
        if type(a) is complex:
            parts = zip((a.real, a.imag), (b.real, b.imag), strict=True)
            return all(_float_bits(p) == _float_bits(q) for p, q in parts)
        if not isinstance(a, _VALUES):
            if id(a) in forth or id(b) in back:
                return forth.get(id(a)) == id(b) and back.get(id(b)) == id(a)
            forth[id(a)], back[id(b)] = id(b), id(a)
            keep.append((a, b))  # An id is only good while its object lives.
        if isinstance(a, set | frozenset):
            return same_set(a, b)
        of_a, of_b = _children(a), _children(b)
        if of_a is None or of_b is None:
            return a is b
        if of_a[0] != of_b[0] or len(of_a[1]) != len(of_b[1]):
            return False
        return all(same(p, q) for p, q in zip(of_a[1], of_b[1], strict=True))

    def same_set(a, b):
        # Elements that compare by value, and at most one instance: enough here.
        left = [p for p in a if not any(type(p) is type(q) and p == q for q in b)]
        right = [q for q in b if not any(type(p) is type(q) and p == q for p in a)]
        if len(a) != len(b) or any(type(p) in _ATOMS for p in (*left, *right)):
            return False
        assert len(left) <= 1, "sets of several instances are not compared"
        return all(map(same, left, right))

    return same(a, b)


def walk_leaves(obj, leaf_type=jax.Array):
    """Return the leaves of a graph in the order of the walk."""
    leaves, seen, keep = [], set(), []

    def walk(obj):
        if is_leaf(obj, leaf_type):
            leaves.append(obj)
            return
        if is_indivisible(obj) or type(obj) in (*_ATOMS, float, complex):
            return
        if not isinstance(obj, _VALUES):
            if id(obj) in seen:
                return
            seen.add(id(obj))
            keep.append(obj)
        if isinstance(obj, set | frozenset):
            children = list(obj)
        else:
            children = (_children(obj) or (None, []))[1]
        for child in children:
            walk(child)

    walk(obj)
    return leaves
