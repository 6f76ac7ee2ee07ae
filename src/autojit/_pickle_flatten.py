"""Drop-ins for two functions of array-api-extra: an object as instances and a rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

from autojit._core import Skeleton
from autojit._jit import flatten

T = TypeVar("T")


def pickle_flatten(
    obj: object, cls: type[T] | tuple[type[T], ...]
) -> tuple[list[T], Skeleton]:
    """Take the instances of a class out of any object, however deep they lie.

    A drop-in for array-api-extra's function of this name. It is `flatten`, with the
    reference's signature.

    Parameters
    ----------
    obj : object
        Anything.
    cls : type or tuple of types
        What to take out. With `jax.Array` that is arrays and their tracers alone.

    Returns
    -------
    instances : list
        The instances of `cls`, in the order of a walk through `obj`. They are not
        looked into. One that occurs twice is there twice.
    rest : Skeleton
        All else, for `pickle_unflatten`. It compares and hashes by value, and can be
        pickled if what it holds can be; not if instances stand where an object takes
        nothing else, such as the numbers of a range.

    Raises
    ------
    RecursionError
        If `obj` is nested too deeply. The message names the path.

    See Also
    --------
    pickle_unflatten : the reverse.
    flatten : the same for all that is traced, by default.

    Notes
    -----
    What is in `obj` is what Python shows: items, keys, elements, attributes and their
    names. To the reference, what pickle makes on the way is there too: the tuples of
    arguments, dicts of attributes, classes of instances. So it finds more of
    a `cls` that is ``tuple``, ``dict`` or ``type``. A tuple that occurs twice is taken
    apart twice, and the instances in it are there twice.

    What the rest is made of, and when two are equal, is the contract of `flatten`. An
    iterator over a container is copied, as pickle does; generators, functions, classes
    and what can't be reduced are in the rest as themselves. So are a bare ``object()``,
    an instance without state and what owns a resource, of which the reference makes
    copies. Equal values have equal rests, whether or not they are the same object.

    Examples
    --------
    >>> import autojit
    >>> instances, rest = autojit.pickle_flatten({"a": [1, 2.5], "b": 3}, int)
    >>> instances
    [1, 3]
    >>> autojit.pickle_unflatten(["x", "y"], rest)
    {'a': ['x', 2.5], 'b': 'y'}
    """
    # The bare `jax.Array` would stand for all that is traced.
    return flatten(obj, (cls,) if isinstance(cls, type) else cls)


def pickle_unflatten(instances: Iterable[object], rest: Skeleton) -> Any:
    """Put an object together again around other instances.

    A drop-in for array-api-extra's function of this name.

    Parameters
    ----------
    instances : iterable
        At least as many objects as `pickle_flatten` returned, in its order. They may be
        other objects, of any types. Of an iterator just as many are taken, so that what
        is left over can go into the next object.
    rest : Skeleton
        As `pickle_flatten` returned it.

    Returns
    -------
    object
        A new object.

    Raises
    ------
    ValueError
        If there are not enough instances.
    TypeError
        If an object's own reduction does not rebuild it. The message names the path
        to the object.

    See Also
    --------
    pickle_flatten : the reverse.
    Skeleton.unflatten : the same for exactly as many.

    Examples
    --------
    >>> import autojit
    >>> _, first = autojit.pickle_flatten([1, "a"], int)
    >>> _, second = autojit.pickle_flatten({"b": (2, 3)}, int)
    >>> stream = iter(range(10, 20))
    >>> autojit.pickle_unflatten(stream, first)
    [10, 'a']
    >>> autojit.pickle_unflatten(stream, second)
    {'b': (11, 12)}
    >>> next(stream)
    13
    """
    taken = list(itertools.islice(instances, rest.num_leaves))
    if len(taken) < rest.num_leaves:
        raise ValueError(
            f"Not enough objects to unpickle: {len(taken)} of {rest.num_leaves}"
        )
    return rest.unflatten(taken)
