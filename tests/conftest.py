"""Settings and fixtures that all tests share."""

import os

# Before JAX is imported: the tests describe dispatch, not a device.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import gc

import hypothesis
import jax.numpy as jnp
import pytest

_COMMON = {
    "deadline": None,
    "suppress_health_check": [
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.filter_too_much,
    ],
}
hypothesis.settings.register_profile("default", max_examples=500, **_COMMON)
hypothesis.settings.register_profile("sanitized", max_examples=50, **_COMMON)
hypothesis.settings.register_profile("nightly", max_examples=20_000, **_COMMON)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def x():
    """A small array, new for each test."""
    return jnp.arange(3.0)


@pytest.fixture
def no_gc():
    """Keep the garbage collector (and its Python callbacks) out of a test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _jit():
    import autojit

    return autojit.jit


def _jax_autojit():
    import autojit

    return autojit.jax_autojit


def _reference():
    from array_api_extra._lib._helpers import jax_autojit

    return jax_autojit


@pytest.fixture(
    params=[_jit, _jax_autojit, _reference],
    ids=["autojit.jit", "autojit.jax_autojit", "reference"],
)
def autojit_like(request):
    """Each implementation of the reference's promises, imported when used."""
    return request.param()


def _flatten():
    import jax

    import autojit

    def flatten(obj, leaf_type=jax.Array):
        return autojit.flatten(obj, leaf_type)

    def unflatten(leaves, skeleton):
        return skeleton.unflatten(leaves)

    return flatten, unflatten


def _pickle_flatten():
    import jax
    from array_api_extra._lib._helpers import pickle_flatten, pickle_unflatten

    def flatten(obj, leaf_type=jax.Array):
        return pickle_flatten(obj, leaf_type)

    return flatten, pickle_unflatten


@pytest.fixture(
    params=[_flatten, _pickle_flatten], ids=["autojit.flatten", "reference"]
)
def flattening(request):
    """A pair ``flatten(obj, leaf_type)``, ``unflatten(leaves, skeleton)``."""
    return request.param()
