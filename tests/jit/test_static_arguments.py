"""`static_argnums` and `static_argnames`: `autojit.jit` where `jax.jit` was."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autojit

X = jnp.arange(3.0)


def power(x, n, mode="sum", *, keep=False):
    y = getattr(jnp, mode)(x**n)
    return (x, y) if keep else y


@pytest.mark.parametrize(
    "options",
    [
        {"static_argnums": 1},
        {"static_argnums": (1, 2)},
        {"static_argnums": [-2]},
        {"static_argnames": "n"},
        {"static_argnames": ("n", "mode", "keep")},
        {"static_argnums": 1, "static_argnames": ["keep"]},
        {"static_argnums": 1, "donate_argnums": ()},
    ],
    ids=str,
)
def test_they_change_nothing(options):
    f = autojit.jit(power, share=False, **options)
    for args, kwargs in (
        ((X, 2), {}),
        ((X,), {"n": 3}),
        ((X, 2, "prod"), {"keep": True}),
    ):
        for ours, theirs in zip(
            jax.tree.leaves(f(*args, **kwargs)),
            jax.tree.leaves(power(*args, **kwargs)),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    f(X, 2)
    assert f.cache_info()[:3] == (1, 3, 3)


@pytest.mark.parametrize(
    ("options", "args", "kwargs", "path"),
    [
        ({"static_argnums": 1}, (X, X), {}, r"args\[1\]"),
        ({"static_argnums": 1}, (X,), {"n": X}, r"kwargs\['n'\]"),
        ({"static_argnums": -1}, (X, 2, X), {}, r"args\[2\]"),
        ({"static_argnames": "n"}, (X, (2, X)), {}, r"args\[1\]\[1\]"),
        ({"static_argnames": "keep"}, (X, 2), {"keep": X}, r"kwargs\['keep'\]"),
    ],
)
def test_an_array_there_is_an_error_as_in_jax(options, args, kwargs, path):
    def fun(x, n, *rest, mode="sum", keep=False):
        raise AssertionError("traced")

    with pytest.raises(ValueError, match="static"):
        jax.jit(fun, **options)(*args, **kwargs)
    f = autojit.jit(fun, share=False, **options)
    with pytest.raises(ValueError, match=rf"^{path} is an array, in an argument that"):
        f(*args, **kwargs)
    assert f.cache_info().currsize == 0


def test_arrays_in_a_static_object_are_traced():
    @dataclasses.dataclass(eq=False)
    class Config:
        n: int
        offset: object

    traced = []

    def fun(x, config):
        traced.append(config.offset)
        return x**config.n + config.offset

    config = Config(2, X)
    for jit in (jax.jit, autojit.jit):
        result = jit(fun, static_argnums=1)(X, config)
        np.testing.assert_array_equal(result, X**2 + X)
    assert [isinstance(x, jax.core.Tracer) for x in traced] == [False, True]


@pytest.mark.parametrize(
    "options",
    [
        {"static_argnums": 4},
        {"static_argnums": -5},
        {"static_argnums": "n"},
        {"static_argnums": 1.5},
        {"static_argnames": "other"},
        {"static_argnames": 1},
        {"static_argnums": 1, "donate_argnums": 1},
        {"static_argnames": "n", "donate_argnames": "n"},
    ],
    ids=str,
)
def test_what_is_wrong_is_wrong_as_in_jax(options):
    def outcome(jit):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                jit(power, **options)
            except Exception as error:
                return type(error), str(error)
        return None

    assert outcome(jax.jit) is not None
    assert outcome(autojit.jit) == outcome(jax.jit)


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("in_shardings", "jax.device_put"),
        ("out_shardings", "jax.lax.with_sharding_constraint"),
        ("device", "jax.device_put"),
        ("backend", "jax.device_put"),
        ("abstracted_axes", "symbolic"),
    ],
)
def test_an_option_that_is_not_taken_says_what_to_do(option, instead):
    with pytest.raises(TypeError, match=f"no {option}: .*{instead}"):
        autojit.jit(power, **{option: None})
