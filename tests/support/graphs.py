"""Comparison of object graphs, written without autojit and without pickle.

``same_graph(a, b)`` says whether two graphs have the same structure: types, values,
order and sharing. It follows the contract of the package: tuples, frozen sets and other
values have no identity of their own; lists, dicts, sets, bytearrays, numpy arrays,
functions and instances have one. ``walk_leaves(a)`` lists the arrays in the order of
the walk, ``mutable_objects(a)`` what can be changed in place, and ``ruin(a)`` changes
all of it.
"""

import array
import collections
import contextlib
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import operator
import pathlib
import re
import struct
import types
import uuid

import jax
import numpy as np

_ATOMS = (
    *(bool, int, float, complex, str, bytes),
    *(type(None), type(Ellipsis), type(NotImplemented)),
)
_BY_IDENTITY = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    enum.Enum,
    np.ufunc,
    type(jax.jit(len)),
)
_FIXED_SCALARS = {np.dtype(code).type for code in "?bBhHiIlLqQefdFD"}
# Their repr tells all that counts in them.
_BY_REPR = (
    decimal.Decimal,
    fractions.Fraction,
    datetime.date,
    datetime.time,
    datetime.tzinfo,
    datetime.timedelta,
    pathlib.PurePath,
    uuid.UUID,
    re.Pattern,
    operator.itemgetter,
    operator.attrgetter,
    operator.methodcaller,
    jax.sharding.PartitionSpec,
    jax.ShapeDtypeStruct,
)
_VALUES = (tuple, frozenset, slice, range, types.MethodType)
_CONSTANTS = {
    decimal.Decimal,
    fractions.Fraction,
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    jax.sharding.PartitionSpec,
    uuid.UUID,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
    type(pathlib.Path()),
}
# What an instance of a subclass of a builtin type is as an instance of the type.
_BASES = {
    int: int.__pos__,
    float: float.__pos__,
    complex: complex.__pos__,
    str: lambda value: str.__getitem__(value, slice(None)),
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
}
_VIEWS = tuple(
    type(view)
    for mapping in ({}, collections.OrderedDict())
    for view in (mapping.keys(), mapping.values(), mapping.items())
)
identical_leaves = operator.is_


def any_leaves(a, b):
    """Leaves are holes: what is in them does not count."""
    return True


def equal_leaves(a, b):
    """The same shape, dtype and values; only for concrete arrays."""
    return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())


def equal_opaques(a, b):
    """Identical, or of one type, with equal hashes, and equal if one asks them."""
    try:
        return a is b or (
            type(a) is type(b) and hash(a) == hash(b) and (a == b) is True
        )
    except Exception:
        return False


def exact(value):
    """Return what tells a value without an inside from all others: a key for dicts."""
    if type(value) is float:
        return float, struct.pack("d", value)
    if type(value) is complex:
        return complex, struct.pack("dd", value.real, value.imag)
    if issubclass(type(value), np.generic):
        return type(value), repr(value.dtype), value.tobytes()
    if type(value) is range:
        return range, value.start, value.stop, value.step
    if type(value) in _ATOMS:
        return type(value), value
    return type(value), id(value)


def slot_state(obj):
    """Return the filled slots of an instance as a dict, base classes first."""
    state = {}
    for cls in reversed(type(obj).__mro__):
        if "__slots__" not in cls.__dict__:
            continue
        for name, member in list(cls.__dict__.items()):
            if type(member) is types.MemberDescriptorType:
                with contextlib.suppress(AttributeError):
                    state[name] = member.__get__(obj)
    return state


def dict_state(obj):
    """Return the ``__dict__`` of an instance, whatever its class says about it."""
    try:
        return object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return {}


def instance_state(obj):
    """Return the state of an ordinary instance: slots, then ``__dict__``."""
    return {**slot_state(obj), **dict_state(obj)}


def is_leaf(obj, leaf_type=jax.Array):
    try:
        return isinstance(obj, leaf_type)
    except Exception:  # It does not even say of which class it is.
        return False


def is_indivisible(obj):
    """Say whether an object is handed through whole."""
    return issubclass(type(obj), _BY_IDENTITY) or _is_opaque(type(obj))


def _is_opaque(cls):
    return cls is object or hasattr(cls, "handed_through_whole")


def is_value(cls):
    """Say whether objects of a type have no identity of their own."""
    # What only its reduction can take apart has an identity: struct sequences, dtypes,
    # the scalars of most of them.
    if cls in {*_ATOMS, *_VALUES, *_FIXED_SCALARS, *_CONSTANTS}:
        return True
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and not _has_dict(cls)


def _has_dict(cls):
    return cls.__dictoffset__ != 0


def _flat(pairs):
    return list(itertools.chain.from_iterable(pairs))


def _own_state(obj):
    """Return the attributes of an instance of a subclass of a builtin type."""
    return _flat(instance_state(obj).items())


def _children(obj):
    """Return ``(value_part, children)``, or None for what has no inside.

    Two objects of one type are the same if their value parts are equal and their
    children are the same, in order. Types in ``kinds.py`` that do not reduce to their
    state name what counts with ``comparable_state``.
    """
    cls = type(obj)
    if cls is types.FunctionType:
        return _function_parts(obj)
    if cls is types.CellType:
        try:
            return True, [obj.cell_contents]
        except ValueError:
            return False, []
    if hasattr(cls, "n_sequence_fields"):
        _, (visible, named) = obj.__reduce__()
        return (len(visible), tuple(named)), [*visible, *named.values()]
    if issubclass(cls, list | tuple | collections.deque):
        part = (len(obj), getattr(obj, "maxlen", None))
        return part, [*obj, *_own_state(obj)]
    if issubclass(cls, dict):
        ordered = issubclass(cls, collections.OrderedDict)
        items = (collections.OrderedDict if ordered else dict).items(obj)
        children = _flat(items)
        if issubclass(cls, collections.defaultdict):
            children.append(obj.default_factory)
        return len(obj), [*children, *_own_state(obj)]
    if issubclass(cls, set | frozenset):
        return len(obj), [*obj, *_own_state(obj)]
    if issubclass(cls, types.MappingProxyType):
        return len(obj), _flat(obj.items())
    if issubclass(cls, _VIEWS):
        return len(obj), list(obj)
    if cls is type(iter([])):
        _, [content], *index = obj.__reduce__()
        return index, [content]
    for base, value_of in _BASES.items():
        if issubclass(cls, base) and not issubclass(cls, np.generic):
            return exact(value_of(obj)), _own_state(obj)
    if issubclass(cls, functools.partial):
        part = (len(obj.args), len(obj.keywords))
        keywords = _flat(obj.keywords.items())
        return part, [obj.func, *obj.args, *keywords, *_own_state(obj)]
    if cls is types.MethodType:
        return None, [obj.__func__, obj.__self__]
    if cls is slice:
        return None, [obj.start, obj.stop, obj.step]
    if cls is range or issubclass(cls, np.generic):
        return exact(obj), []
    if issubclass(cls, np.ma.MaskedArray):
        return repr(obj.fill_value), [obj.data, np.ma.getmaskarray(obj)]
    if issubclass(cls, np.ndarray):
        fortran = obj.flags.f_contiguous and not obj.flags.c_contiguous
        if obj.dtype.hasobject:
            return (obj.shape, repr(obj.dtype), fortran), obj.ravel().tolist()
        return (obj.shape, repr(obj.dtype), fortran, obj.tobytes()), []
    if issubclass(cls, np.dtype) or issubclass(cls, _BY_REPR):
        return repr(obj), []
    if issubclass(cls, bytearray):
        return bytes(obj), _own_state(obj)
    if issubclass(cls, array.array):
        return (obj.typecode, obj.tobytes()), _own_state(obj)
    if issubclass(cls, memoryview):
        return (obj.format, obj.shape, obj.tobytes()), []
    if hasattr(cls, "comparable_state"):
        with contextlib.suppress(AttributeError):  # It may have lost some.
            return None, [obj.comparable_state()]
    slots, attributes = slot_state(obj), dict_state(obj)
    if slots or attributes or _has_dict(cls) or "__slots__" in cls.__dict__:
        return (tuple(slots), len(attributes)), [
            *slots.values(),
            *_flat(attributes.items()),
        ]
    return None


def _function_parts(function):
    state = [
        function.__module__,
        function.__doc__,
        function.__defaults__,
        function.__kwdefaults__,
        function.__annotations__,
        *(function.__closure__ or ()),
    ]
    key = (
        id(function.__code__),
        id(function.__globals__),
        function.__name__,
        function.__qualname__,
        len(state),
    )
    return key, state + _flat(function.__dict__.items())


def same_graph(a, b, leaves=any_leaves, opaques=operator.is_):
    """Say whether two graphs have equal structure, values and sharing."""
    # Functions and opaque objects are handed through with all that hangs off them, all
    # the rest is copied. So what is inside a function shares nothing with what is
    # outside, and has maps of its own.
    maps = {False: ({}, {}), True: ({}, {})}
    keep = []

    def same(a, b, inside):
        if is_leaf(a) or is_leaf(b):
            both = is_leaf(a) and is_leaf(b)
            return both and (a is b if inside else leaves(a, b))
        cls = type(a)
        if cls is not type(b):
            return False
        if issubclass(cls, _BY_IDENTITY):
            return a is b
        if cls in _ATOMS:
            return exact(a) == exact(b)
        opaque = _is_opaque(cls)
        whole = opaque or cls in (types.FunctionType, types.CellType)
        if not is_value(cls):
            forth, back = maps[inside or whole]
            if id(a) in forth or id(b) in back:
                return forth.get(id(a)) == id(b) and back.get(id(b)) == id(a)
            forth[id(a)], back[id(b)] = id(b), id(a)
            keep.append((a, b))  # An id is only good while its object lives.
        if opaque:
            return opaques(a, b)
        inside = inside or whole
        if issubclass(cls, set | frozenset):
            return same_set(a, b, inside) and same_all(
                _own_state(a), _own_state(b), inside
            )
        of_a, of_b = _children(a), _children(b)
        if of_a is None or of_b is None:
            return a is b
        keep.append((of_a, of_b))
        return of_a[0] == of_b[0] and same_all(of_a[1], of_b[1], inside)

    def same_all(a, b, inside):
        return len(a) == len(b) and all(
            same(p, q, inside) for p, q in zip(a, b, strict=True)
        )

    def same_set(a, b, inside):
        def split(elements):
            atoms = {exact(p) for p in elements if type(p) in _ATOMS}
            return atoms, [p for p in elements if type(p) not in _ATOMS]

        (atoms_a, rest_a), (atoms_b, rest_b) = split(a), split(b)
        if atoms_a != atoms_b or len(rest_a) != len(rest_b):
            return False
        if len(rest_a) < 2:
            return same_all(rest_a, rest_b, inside)
        # Which element goes with which only trying shows. That what is compared after
        # the set could want another choice is neglected.
        before = {key: tuple(map(dict, pair)) for key, pair in maps.items()}
        for order in itertools.permutations(rest_b):
            if same_all(rest_a, order, inside):
                return True
            maps.update({key: tuple(map(dict, pair)) for key, pair in before.items()})
        return False

    return same(a, b, False)


def _walk(obj, leaf_type, visit):
    """Call `visit` with each object of a graph, at each occurrence if it is a value."""
    seen, keep = set(), []

    def walk(obj):
        cls = type(obj)
        if is_leaf(obj, leaf_type) or is_indivisible(obj) or cls in _ATOMS:
            visit(obj)
            return
        if not is_value(cls):
            if id(obj) in seen:
                return
            seen.add(id(obj))
        visit(obj)
        if cls in (types.FunctionType, types.CellType):
            return
        children = (_children(obj) or (None, []))[1]
        keep.append((obj, children))
        for child in children:
            walk(child)

    walk(obj)


def walk_leaves(obj, leaf_type=jax.Array):
    """Return the leaves of a graph in the order of the walk."""
    leaves = []
    _walk(obj, leaf_type, lambda o: leaves.append(o) if is_leaf(o, leaf_type) else None)
    return leaves


_MUTABLE = (list, dict, set, bytearray, collections.deque, np.ndarray, array.array)


def mutable_objects(obj):
    """Return the mutable containers and the instances of a graph."""
    found = []

    def visit(o):
        if is_leaf(o) or is_indivisible(o) or type(o) is types.FunctionType:
            return
        if issubclass(type(o), _BY_REPR):
            return
        if issubclass(type(o), _MUTABLE) or instance_state(o):
            found.append(o)

    _walk(obj, jax.Array, visit)
    return found


def ruin(obj):
    """Change all in a graph that can be changed in place."""
    for o in mutable_objects(obj):
        if issubclass(type(o), np.ndarray):
            if o.dtype.hasobject:
                o[...] = None
            elif o.dtype.kind in "US":
                o[...] = "z"
            elif o.size:
                o[...] = np.frombuffer(b"\x01" * o.dtype.itemsize, o.dtype)[0]
            continue  # What a subclass keeps in its `__dict__` it needs.
        if issubclass(type(o), array.array):
            del o[:]
        elif issubclass(type(o), list):
            list.clear(o)
        elif issubclass(type(o), collections.OrderedDict):
            collections.OrderedDict.clear(o)
        elif issubclass(type(o), dict):
            dict.clear(o)
        elif issubclass(type(o), _MUTABLE):
            o.clear()
        dict_state(o).clear()
        for name in slot_state(o):
            object.__setattr__(o, name, "ruined")
