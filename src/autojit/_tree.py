"""Any object as a pytree: what JAX is told of trees, and how they are pickled.

The core takes trees apart and puts them together; see ``csrc/tree/``.
"""

from __future__ import annotations

import copyreg
from typing import Any, TypeVar

import jax
from jax.tree_util import GetAttrKey

from autojit import _core
from autojit._core import Leaves, Structure, Tree

T = TypeVar("T")


def tree(obj: T, *, inexact: bool = False) -> Tree[T]:
    """Make a pytree of any object, for what in JAX wants pytrees.

    To JAX, the leaves are the arrays in the object, however deep, and all the rest is
    static, as `flatten` tells them apart. ``jax.grad``, ``jax.vmap``, ``jax.lax.scan``,
    ``jax.tree.map``, Optax, checkpoints and ``jax.jit`` take such a tree and return
    others, whose `obj` is an object like this one around other leaves.

    Parameters
    ----------
    obj : object
        Anything. It is not copied, and taken apart each time that JAX asks for its
        leaves: a change of it in place counts.
    inexact : bool, default: False
        Whether only arrays of real or complex numbers are leaves, as ``jax.grad`` and
        Optax want it. The other arrays (integers, bools, random keys) are then static,
        and compared by identity: a tree with others in their places is another one, so
        that ``jax.jit`` traces anew for it.

    Returns
    -------
    Tree
        A pytree with the one attribute `obj`.

    Raises
    ------
    RecursionError
        When JAX asks for the leaves, if `obj` is nested too deeply. The message names
        the path.
    TypeError
        When `obj` of a tree is asked for that JAX has made, if an object's own
        reduction does not rebuild it. The message names the path.

    See Also
    --------
    flatten : the leaves and the rest of an object.

    Notes
    -----
    Each tree that JAX returns has an object of its own, put together when `obj` is
    first asked for. What a function changes in it in place, such as
    ``t.obj.step += 1``, is in the tree from then on. If a leaf is no array, as in a
    tree of bools or specs from ``jax.tree.map``, the tree stays as it was made: only
    what stands in the place of a leaf can be changed.

    Where JAX compares two trees, as for the carry of a loop, and a static part differs,
    its error says which, such as ``obj.step is 0`` and ``obj.step is 1``.

    Examples
    --------
    >>> import dataclasses
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import autojit
    >>> @dataclasses.dataclass
    ... class Model:
    ...     w: jax.Array
    ...     power: int
    >>> def loss(t):
    ...     return jnp.sum(t.obj.w**t.obj.power)
    >>> t = autojit.tree(Model(jnp.arange(3.0), 2))
    >>> value, gradient = jax.value_and_grad(loss)(t)
    >>> gradient.obj
    Model(w=Array([0., 2., 4.], dtype=float32), power=2)
    >>> jax.tree.map(lambda w, g: w - 0.5 * g, t, gradient).obj.w
    Array([0., 0., 0.], dtype=float32)
    """
    return _core.tree(obj, bool(inexact))


def is_inexact(array: Any) -> bool:
    """Whether ``jax.grad`` can differentiate with respect to a leaf."""
    return isinstance(array, jax.Array) and jax.numpy.issubdtype(
        array.dtype, jax.numpy.inexact
    )


# A key that prints as the whole path to a leaf, from the object on. It is one of JAX's
# kinds of keys, since checkpoints know only those.
_Path = type("_Path", (GetAttrKey,), {"__str__": lambda key: str(key.name)})


_OBJ = GetAttrKey("obj")


def _flatten_tree_with_keys(
    tree: Tree[Any],
) -> tuple[tuple[tuple[GetAttrKey, Any]], Structure]:
    (child,), structure = _core.flatten_tree(tree)
    return ((_OBJ, child),), structure


def _flatten_leaves_with_keys(
    leaves: Leaves,
) -> tuple[tuple[tuple[GetAttrKey, Any], ...], None]:
    items, static = _core.flatten_leaves(leaves)
    paths = leaves.paths
    if len(paths) != len(items):  # in no tree, or in one that they do not fit
        paths = tuple(f"[{i}]" for i in range(len(items)))
    return tuple(zip(map(_Path, paths), items, strict=True)), static


jax.tree_util.register_pytree_with_keys(
    Tree, _flatten_tree_with_keys, _core.unflatten_tree, _core.flatten_tree
)
jax.tree_util.register_pytree_with_keys(
    Leaves, _flatten_leaves_with_keys, _core.unflatten_leaves, _core.flatten_leaves
)


def _reduce_tree(tree: Tree[Any]) -> tuple[Any, ...]:
    parts = tree._parts()
    if parts is not None:
        return _core.unflatten_tree, parts
    # As its state: the object may hold the tree.
    return _core.empty_tree, (tree._inexact,), {"obj": tree.obj}


def _reduce_leaves(leaves: Leaves) -> tuple[Any, ...]:
    return _core.unflatten_leaves, (None, leaves.items)


def _reduce_structure(structure: Structure) -> tuple[Any, ...]:
    parts = structure.skeleton, structure.kept, structure.inexact
    return _core.new_structure, parts


copyreg.pickle(Tree, _reduce_tree)
copyreg.pickle(Leaves, _reduce_leaves)
copyreg.pickle(Structure, _reduce_structure)
