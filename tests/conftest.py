"""Settings and fixtures that all tests share."""

import os

# Before JAX is imported: the tests describe dispatch, not a device.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import atexit
import gc
import shutil
import tempfile

import hypothesis
import jax
import jax.numpy as jnp
import pytest

pytest_plugins = "pytester"

# Most of the time would go into XLA, which compiles the same few programs over and
# over, as each test has functions of its own. So each program is compiled once in a
# process, and from then on JAX finds it on disk. Other processes that tests start do
# without: hence it is not set in the environment.
_compiled = tempfile.mkdtemp(prefix="autojit-tests-")
jax.config.update("jax_compilation_cache_dir", _compiled)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
_process = os.getpid()


@atexit.register
def _remove_compiled():
    if os.getpid() == _process:  # and not a fork of it
        shutil.rmtree(_compiled, ignore_errors=True)


_COMMON = {
    "deadline": None,
    "suppress_health_check": [
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.filter_too_much,
    ],
}
hypothesis.settings.register_profile("default", max_examples=400, **_COMMON)
hypothesis.settings.register_profile("sanitized", max_examples=50, **_COMMON)
hypothesis.settings.register_profile("nightly", max_examples=20_000, **_COMMON)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="module", autouse=True)
def few_objects_to_collect():
    """Spare the collector what is there before the first test of a module.

    That is JAX with all the libraries, and thousands of tests. It would go through them
    each time that a test asks it for the few objects of its own.
    """
    gc.collect()
    gc.freeze()


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
