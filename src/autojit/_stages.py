"""Ahead of time: a dispatcher's ``trace``, ``lower``, ``eval_shape`` and ``flat``.

Each stage of JAX is there in a form that takes and gives objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from autojit import _core
from autojit._jax_private import hide_frames
from autojit._specialize import leaves_in, say_where

hide_frames(__file__)

_ShapeDtypeStruct: Any = jax.ShapeDtypeStruct  # without types in some versions


class _Call(NamedTuple):
    """A call that a stage was made for."""

    dispatcher: Any
    specialization: Any
    compiled: Any
    skeleton: _core.Skeleton

    def put_together(self, returned: Any, leaves: Sequence[Any]) -> Any:
        """Make the result of what a stage has in its place."""
        return _core.unwrap(returned, self.skeleton, tuple(leaves))


class _Stage:
    """A stage of JAX for a call of objects.

    What is not here is JAX's own, and speaks of flat leaves.
    """

    def __init__(self, stage: Any, call: _Call) -> None:
        self._stage = stage
        self._call = call

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # such as what pickle and copy ask for
            raise AttributeError(name)
        return getattr(self._stage, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._stage)})

    def __repr__(self) -> str:
        return f"<autojit {type(self).__name__} of {self._call.dispatcher!r}>"

    @property
    def args_info(self) -> Any:
        """The arguments, with what JAX says of an array in the place of each.

        Returns
        -------
        tuple
            The positional arguments and a dict of the others.
        """
        _, args, kwargs = self._call.skeleton.unflatten(
            jax.tree.leaves(self._stage.args_info)
        )
        return args, kwargs

    @property
    def out_info(self) -> Any:
        """The result, with a `jax.ShapeDtypeStruct` in the place of each array.

        Returns
        -------
        object
            As the function returns it.
        """
        # As JAX says it of an array that was computed.
        given = [
            _ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=self._weak_type(leaf))
            for leaf in jax.tree.leaves(self._stage.in_avals)
        ]
        return self._call.put_together(self._stage.out_info, given)

    def _weak_type(self, aval: Any) -> bool:
        return False


class _CallableStage(_Stage):
    """A stage that is called with objects and returns objects."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it.

        Parameters
        ----------
        *args, **kwargs
            Arguments like those that it was made for: other arrays of the same shapes
            and dtypes, and all else equal.

        Returns
        -------
        object
            As the function returns it.

        Raises
        ------
        TypeError
            If there is something else in the arguments. The message names the path. Or
            if this version of JAX can't call such a stage.
        """
        call, made = self._call, type(self).__name__.lower()
        skeleton, leaves = call.dispatcher._take_apart(*args, **kwargs)
        if skeleton != call.skeleton:
            raise TypeError(
                f"this was {made} for other arguments: "
                f"{call.skeleton.diff(skeleton)}. Call the function itself, "
                "which traces again, or lower it for these"
            )
        if not call.specialization.serves_identities(skeleton):
            raise TypeError(
                f"this was {made} for other arguments: its result holds what belongs "
                "to a function or object of the call that it was lowered for, and this "
                "call has another one, if an equal one"
            )
        try:
            returned = self._stage(*leaves)
        except Exception as error:
            error.args = tuple(_with_paths(arg, skeleton) for arg in error.args)
            say_where(error, skeleton, call.compiled, leaves)
            raise
        return call._replace(skeleton=skeleton).put_together(returned, leaves)


class Traced(_CallableStage):
    """A function that was traced for a call.

    Beside what is here it has what `jax.stages.Traced` has.
    """

    def _weak_type(self, aval: Any) -> bool:
        return bool(aval.weak_type)

    def lower(self, **options: Any) -> Lowered:
        """Lower it to what can be compiled.

        Parameters
        ----------
        **options
            See `jax.stages.Traced.lower`.

        Returns
        -------
        Lowered
            The next stage.
        """
        return Lowered(self._stage.lower(**options), self._call)


class Lowered(_Stage):
    """A function that was lowered for a call.

    Beside what is here it has what `jax.stages.Lowered` has.
    """

    def compile(self, *args: Any, **options: Any) -> Compiled:
        """Compile it.

        Parameters
        ----------
        *args, **options
            See `jax.stages.Lowered.compile`.

        Returns
        -------
        Compiled
            What can be called.
        """
        return Compiled(self._stage.compile(*args, **options), self._call)


class Compiled(_CallableStage):
    """A function that was compiled for a call.

    Beside what is here it has what `jax.stages.Compiled` has.
    """

    @property
    def output_shardings(self) -> tuple[Any, ...]:
        """The shardings of the arrays that are computed, those handed back left out.

        Returns
        -------
        tuple of jax.sharding.Sharding
            In the order in which they stand in the result.
        """
        return tuple(jax.tree.leaves(self._stage.output_shardings))

    @property
    def output_formats(self) -> tuple[Any, ...]:
        """The same as formats: shardings, and how the arrays lie in memory.

        Returns
        -------
        tuple of jax.experimental.layout.Format
            In the order in which they stand in the result.
        """
        return tuple(jax.tree.leaves(self._stage.output_formats))


def _with_paths(text: Any, skeleton: _core.Skeleton) -> Any:
    """Put paths in the place of the numbers by which JAX speaks of leaves."""

    def path(found: re.Match[str]) -> str:
        number = int(found[1])
        is_known = number < skeleton.num_leaves
        return skeleton._leaf_path(number) if is_known else found[0]

    return re.sub(r"\bleaves\[(\d+)\]", path, text) if type(text) is str else text


class Flat(NamedTuple):
    """A call as a function of arrays alone.

    Attributes
    ----------
    fun : callable
        Compiled by ``jax.jit``: takes as many arrays as there are `leaves`, and returns
        a tuple of those of the result, untouched ones included. Takes other shapes as
        long as all else in the result is the same.
    leaves : tuple
        The arrays of the call.
    unflatten : callable
        Makes the result of what `fun` returns, or of anything in the place of it.
    """

    fun: Any
    leaves: tuple[Any, ...]
    unflatten: Callable[[Iterable[Any]], Any]


def _flat(call: _Call, leaves: tuple[Any, ...]) -> Flat:
    compiled = call.compiled
    known: list[_core.Skeleton] = []  # of the result

    def fun(*leaves: jax.Array) -> tuple[jax.Array, ...]:
        with jax.disable_jit(False):
            result = call.put_together(compiled(*leaves), leaves)
        arrays, skeleton = _core.flatten(result, None)
        if not known:
            known.append(skeleton)
        elif skeleton != known[0]:
            raise TypeError(
                "for these arrays the result has other parts that are no arrays: "
                f"{known[0].diff(skeleton)}. Make another flat function for them"
            )
        return tuple(arrays)

    jax.eval_shape(fun, *leaves)
    fun.__name__ = fun.__qualname__ = compiled.__name__
    donated = leaves_in("donate", call.skeleton, call.dispatcher._options)
    return Flat(jax.jit(fun, donate_argnums=donated), leaves, known[0].unflatten)


def stage(
    name: str,
    dispatcher: Any,
    specialization: Any,
    compiled: Any,
    skeleton: _core.Skeleton,
    leaves: tuple[Any, ...],
) -> Any:
    """Make a stage for a call.

    Parameters
    ----------
    name : str
        Of the dispatcher's method that was called.
    dispatcher : Dispatcher
        Whose it is.
    specialization : Specialization
        What would serve the call.
    compiled : callable
        Its ``jax.jit``-compiled function.
    skeleton : Skeleton
        Of the call.
    leaves : tuple
        Of the call: arrays, or stand-ins.

    Returns
    -------
    Traced, Lowered, Flat or object
        What the method returns.
    """
    call = _Call(dispatcher, specialization, compiled, skeleton)
    # It says how JAX calls functions, and here none is called.
    with jax.disable_jit(False):
        traced = Traced(compiled.trace(*leaves), call)
        if name == "lower":
            return traced.lower()
        if name == "eval_shape":
            return traced.out_info
        if name == "flat":
            return _flat(call, leaves)
        return traced
