"""What a type checker is to know of autojit: checked by mypy, never run.

`mypy --strict` must agree with every `assert_type`, and must find an error on
each line that ends in a `type: ignore[...]`: an ignore that hides nothing is an
error itself there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_type

import jax
import jax.numpy as jnp

import autojit
from autojit import CacheInfo, Dispatcher, Skeleton, Tree

Array = jax.Array


@dataclass
class State:
    weight: Array
    step: int


# A decorator without arguments.
@autojit.jit
def scale(state: State, factor: float, *, twice: bool = False) -> State:
    return State(state.weight * factor * (2 if twice else 1), state.step + 1)


state = State(jnp.ones(3), 0)
assert_type(scale(state, 2.0), State)
assert_type(scale(state, factor=2.0, twice=True), State)
scale(state)  # type: ignore[call-arg]
scale(state, "two")  # type: ignore[arg-type]
scale(state, 2.0, thrice=True)  # type: ignore[call-arg]
scale(state, 2.0, True)  # type: ignore[call-arg]


# A decorator with arguments.
@autojit.jit(maxsize=16, inline=True)
def norm(x: Array, order: int | str = 2) -> tuple[Array, str]:
    return jnp.linalg.norm(x, order), str(order)


assert_type(norm(state.weight), tuple[Array, str])
assert_type(norm(state.weight, "fro"), tuple[Array, str])
norm()  # type: ignore[call-arg]


@autojit.jit()
def negative(x: Array) -> Array:
    return -x


dispatcher: Dispatcher[[Array], Array] = negative
assert_type(negative(state.weight), Array)
negative("x")  # type: ignore[arg-type]


# Called as a function.
def add(x: Array, y: Array) -> Array:
    return x + y


assert_type(autojit.jit(add)(state.weight, y=state.weight), Array)
assert_type(
    autojit.jit(add, keep_unused=True, compiler_options={}, maxsize=None)(
        state.weight, state.weight
    ),
    Array,
)
autojit.jit(3)  # type: ignore[call-overload]
autojit.jit(add, maximum=3)  # type: ignore[call-overload]


# A method loses its self when it is looked up on an instance, not on the class.
class Model:
    def __init__(self, weight: Array) -> None:
        self.weight = weight

    @autojit.jit
    def apply(self, x: Array, power: int = 1) -> Array:
        return self.weight * x**power

    @autojit.jit(maxsize=None)
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @staticmethod
    @autojit.jit
    def double(x: Array) -> Array:
        return 2 * x


class Submodel(Model):
    pass


model = Model(state.weight)
assert_type(model.apply(state.weight), Array)
assert_type(model.apply(state.weight, power=2), Array)
assert_type(model.shape(), tuple[int, ...])
assert_type(Model.apply(model, state.weight), Array)
assert_type(Model.double(state.weight), Array)
assert_type(Submodel(state.weight).apply(state.weight), Array)
assert_type(model.apply.cache_info(), CacheInfo)
model.apply()  # type: ignore[call-arg]
model.apply("x")  # type: ignore[arg-type]
Model.apply(state.weight)  # type: ignore[call-arg,arg-type]


# The drop-in of array-api-extra.
assert_type(autojit.jax_autojit(add)(state.weight, y=state.weight), Array)
autojit.jax_autojit(add)(state.weight)  # type: ignore[call-arg]
assert_type(autojit.jax_autojit(scale.__wrapped__)(state, 2.0), State)


# What a dispatcher is besides.
def use(function: Callable[[Array, Array], Array]) -> None:
    function(state.weight, state.weight)


use(autojit.jit(add))
use(norm)  # type: ignore[arg-type]
assert_type(scale.__name__, str)
assert_type(negative.__wrapped__(state.weight), Array)
info = scale.cache_info()
assert_type(info, CacheInfo)
assert_type(info.hits, int)
assert_type(info.maxsize, int | None)
assert_type(scale.clear_cache(), None)


# Flatten.
leaves, skeleton = autojit.flatten(state)
assert_type(leaves, list[Array])
assert_type(skeleton, Skeleton)
assert_type(autojit.flatten([1, 2.0], int)[0], list[int])
assert_type(autojit.flatten([1, True], leaf_type=(int, bool))[0], list[int])
skeleton.unflatten(leaves)
assert_type(skeleton == skeleton, bool)
assert_type(hash(skeleton), int)
skeleton.unflatten()  # type: ignore[call-arg]

# Trees.
tree = autojit.tree(state)
assert_type(tree, Tree[State])
assert_type(tree.obj, State)
assert_type(autojit.tree(state, inexact=True).obj.step, int)
assert_type(autojit.tree([state]), Tree[list[State]])
# As everywhere in this file, what is ignored has to be an error: the object of a tree
# is not to be replaced, and `inexact` is passed by its name.
tree.obj = state  # type: ignore[misc]
autojit.tree(state, True)  # type: ignore[call-arg]

# The drop-ins.
numbers, rest = autojit.pickle_flatten([1, 2.0], int)
assert_type(numbers, list[int])
assert_type(autojit.pickle_flatten([1, True], (int, bool))[0], list[int])
autojit.pickle_unflatten(iter(numbers), rest)
autojit.pickle_flatten([1])  # type: ignore[call-arg]
autojit.pickle_unflatten(numbers, numbers)  # type: ignore[arg-type]
