"""What an import of autojit adds to one of JAX."""

import subprocess
import sys

import jax
import jax.extend.core
import pytest
from numpy.testing import assert_array_equal

import autojit

PRINT_IMPORTED = """
import sys
import jax
before = set(sys.modules)
import autojit
print(*sorted(set(sys.modules) - before))
"""


def test_no_more_of_jax_is_imported():
    """Such as jax.extend, which brings Pallas with it: that takes longer than ours."""
    printed = subprocess.check_output([sys.executable, "-c", PRINT_IMPORTED], text=True)
    imported = printed.split()
    assert "autojit._jit" in imported
    assert "autojit._compilation_cache" not in imported  # for tests with the plugin
    others = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert others <= {"autojit", "cloudpickle"}  # most versions of JAX have the second


@pytest.mark.parametrize("primitive", [jax.lax.add_p, jax.extend.core.Primitive("p")])
def test_a_primitive_is_one_all_the_same(primitive):
    assert type(primitive) is jax.extend.core.Primitive
    f = autojit.jit(lambda p, x: (p, x))
    returned, y = f(primitive, jax.numpy.ones(2))
    assert returned is primitive
    assert_array_equal(y, 1)
