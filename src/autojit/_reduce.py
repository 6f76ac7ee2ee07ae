"""The pickle fallback: objects that only their own reduction can take apart.

A reduction is what ``__reduce_ex__`` returns, brought to one form: a tuple
``(func, args, state, list_items, dict_items, state_setter)`` with None for what is not
there. The core walks its parts like those of any other object.
"""

from __future__ import annotations

import contextlib
import copyreg
import io
import types
from collections.abc import Callable
from typing import Any

import cloudpickle
import jax
import numpy as np

from autojit import _core
from autojit._exceptions import reduce_exception

Reduction = tuple[Any, tuple[Any, ...], Any, Any, Any, Any]


def reduce(obj: object, value: object, may_lose: bool) -> Reduction | None:
    """Bring a reduction to the form above.

    Parameters
    ----------
    obj : object
        Anything that the core does not know how to take apart.
    value : object
        What its ``__reduce_ex__`` returned; None if it refused.
    may_lose : bool
        Whether this is a builtin's or the standard library's, which may leave out what
        a Python class has added.

    Returns
    -------
    tuple or None
        None if there is no reduction, or if it says that the object is to be found by
        name: then it is opaque.
    """
    if value is None:
        value = _view(obj) if type(obj) is memoryview else _cloudpickle_reduce(obj)
    try:
        if not isinstance(value, tuple) or not 2 <= len(value) <= 6:
            return None
        func, args, *rest = value
        state, list_items, dict_items, setter = (*rest, None, None, None, None)[:4]
        if not callable(func) or not isinstance(args, tuple):
            return None
        if list_items is not None:
            list_items = list(list_items)
        if dict_items is not None:
            dict_items = [(key, value) for key, value in dict_items]
        lost = _lost_attributes(obj, func, args, state) if may_lose else ()
        if any(lost):
            state, setter = (state, setter, *lost), _set_state_and_attributes
        if issubclass(type(obj), BaseException):
            exception: Any = obj
            func, args, state, setter = reduce_exception(
                exception, func, args, state, setter, set_state
            )
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return None
    return func, args, state, list_items, dict_items, setter


def _lost_attributes(
    obj: object, func: object, args: tuple[Any, ...], state: object
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a Python class has added to an instance and a builtin one left out.

    Nothing is lost of what the reduction finds instead of making it, such as a logger:
    to that, nothing must be added either.

    Returns
    -------
    attributes, slots : dict
        From names to values: of the instance's ``__dict__`` and of its slots.
    """
    kind = type(obj)
    if id(kind) not in map(id, (func, *args)):  # a class may have its own `==`
        return {}, {}
    lost, slots = {}, {}
    attributes = getattr(obj, "__dict__", None)
    if isinstance(attributes, dict) and not _holds(state, attributes):
        lost.update(vars(obj))
        if issubclass(kind, np.memmap):
            for name in _OF_MEMMAP:  # of the file, which a copy is not
                lost.pop(name, None)
    if not (isinstance(state, tuple) and len(state) == 2 and type(state[1]) is dict):
        for base in kind.__mro__:
            if "__reduce__" in vars(base) or "__reduce_ex__" in vars(base):
                break  # what is further up, it knows of
            for name, member in vars(base).items():
                if isinstance(member, types.MemberDescriptorType):
                    with contextlib.suppress(AttributeError):
                        slots[name] = member.__get__(obj)
    return lost, slots


def _holds(state: object, attributes: dict[str, Any]) -> bool:
    """Whether a reduction's state has an instance's attributes in it."""
    parts = (state, *state) if type(state) is tuple else (state,)
    return any(
        part is attributes or (type(part) is dict and part.keys() >= attributes.keys())
        for part in parts
    )


def _set_state_and_attributes(
    obj: Any, parts: tuple[Any, Any, dict[str, Any], dict[str, Any]]
) -> None:
    state, setter, attributes, slots = parts
    set_state(obj, state, None, None, setter)
    # The reduction may have made an object of a class that takes none.
    with contextlib.suppress(AttributeError):
        if attributes:
            obj.__dict__.update(attributes)
        for name, value in slots.items():
            object.__setattr__(obj, name, value)  # the class's own may refuse


_OF_MEMMAP = "_mmap", "filename", "mode", "offset"


def _view(view: memoryview) -> Any:
    """Reduce a memoryview to its content: to cloudpickle it is no more than bytes."""
    try:
        parts: Any = view.tobytes(), view.format, view.shape, view.readonly
        _rebuild_view(*parts)
    except Exception:  # released, or of a format that only its maker knows
        return None
    return _rebuild_view, parts


def _rebuild_view(
    content: bytes, form: Any, shape: tuple[int, ...], readonly: bool
) -> memoryview:
    view = memoryview(content if readonly else bytearray(content))
    return view if (form, len(shape)) == ("B", 1) else view.cast(form, shape)


def _cloudpickle_reduce(obj: object) -> Any:
    """Reduce what only cloudpickle can: mapping proxies, dict views and the like."""
    try:
        reducer = cloudpickle.CloudPickler.dispatch_table.get(type(obj))
        # It would read an open file, and so move it.
        if reducer is None or issubclass(type(obj), io.IOBase):
            return None
        return reducer(obj)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return None


def set_state(
    obj: Any,
    state: Any,
    list_items: list[Any] | None,
    dict_items: list[tuple[Any, Any]] | None,
    setter: Callable[[Any, Any], object] | None,
) -> None:
    """Give a rebuilt object the rest of its reduction, in the order of pickle.

    Parameters
    ----------
    obj : object
        What ``func(*args)`` of the reduction returned.
    state, list_items, dict_items, setter : object
        The other parts of the reduction.
    """
    if list_items is not None:
        extend = getattr(obj, "extend", None)
        if extend is not None:
            extend(list_items)
        else:
            for item in list_items:
                obj.append(item)
    if dict_items is not None:
        for key, value in dict_items:
            obj[key] = value
    if state is None:
        return
    if setter is not None:
        setter(obj, state)
        return
    own_setter = getattr(obj, "__setstate__", None)
    if own_setter is not None:
        own_setter(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state is obj:
        obj.__dict__ = obj  # a dict whose keys are its attributes
    elif state:
        obj.__dict__.update(state)
    if slots:
        for name, value in slots.items():
            setattr(obj, name, value)


def arrays_differ(one: Any, other: Any) -> bool:
    """Whether an array differs from what a reduction has made of it.

    Parameters
    ----------
    one, other : jax.Array or other value of JAX
        Of a tracer nothing is known: it equals itself only.

    Returns
    -------
    bool
        True if they differ by more than rounding: the constructor of an object may
        compute once more what it holds.
    """
    if one is other:
        return False
    if not all(isinstance(array, jax.Array) for array in (one, other)) or any(
        isinstance(array, jax.core.Tracer) or array.is_deleted()
        for array in (one, other)
    ):
        return True
    if one.shape != other.shape or one.dtype != other.dtype:
        return True
    if jax.numpy.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = map(jax.random.key_data, (one, other))
    try:
        a, b = np.asarray(one), np.asarray(other)
    except (RuntimeError, ValueError):  # on devices of other processes
        return True
    if not jax.numpy.issubdtype(a.dtype, jax.numpy.inexact):
        return not np.array_equal(a, b)
    rounding = 4 * float(np.spacing(a.real.dtype.type(1)))
    if rounding > 0.1:  # of so few bits that each value counts
        rounding = 0
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    return not np.allclose(a, b, rtol=rounding, atol=0, equal_nan=True)


class _Hole:
    """What stands for a leaf in a pickled skeleton."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "_HOLE"


# One for all: a skeleton that is reduced once more is to give the same.
_HOLE = _Hole()


def _load_skeleton(obj: object) -> _core.Skeleton:
    return _core.flatten(obj, _Hole)[1]


def _reduce_skeleton(skeleton: _core.Skeleton) -> tuple[Any, ...]:
    return _load_skeleton, (skeleton.unflatten([_HOLE] * skeleton.num_leaves),)


copyreg.pickle(_core.Skeleton, _reduce_skeleton)
