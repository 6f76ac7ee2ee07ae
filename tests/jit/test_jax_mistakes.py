"""The common mistakes with JAX: autojit says of each no less than ``jax.jit``."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from kinds import HostileError

import autojit


def arguments():
    """Return what each mistake is made with: one argument with three arrays in it."""
    return {"n": jnp.int32(3), "x": jnp.arange(3.0), "m": jnp.ones((2, 3))}


def outcome(jit, fun):
    """Return the exception of a call, and its text without the notes."""
    try:
        result = jit(fun)(arguments())
    except Exception as error:
        return error, str(error)
    pytest.fail(f"no error, but {result}")


def notes_of(error):
    """Return the notes on an exception, without those of JAX."""
    return [note for note in getattr(error, "__notes__", ()) if "JAX" not in note]


def with_paths(text, notes):
    """Put what the notes say in the place of the numbers."""
    for leaf, path in re.findall(r"^(leaves\S+) is (.+)$", "\n".join(notes), re.M):
        text = text.replace(leaf, path)
    return text.replace("args[0]", "c")


def loop(c):
    while c["n"] > 0:
        c["n"] = c["n"] - 1


def assign(c):
    c["x"][0] = 1.0


def put_into_numpy(c):
    made = np.zeros(3)
    made[0] = c["x"][0]


def check(c):
    assert c["x"].sum() > 0


# The function, and the arrays of the argument that the message speaks of.
MISTAKES = {
    "if": (lambda c: 1 if c["n"] > 0 else 2, "n"),
    "while": (loop, "n"),
    "and": (lambda c: c["n"] > 0 and c["n"] < 5, "n"),
    "assert": (check, "x"),
    "in a list": (lambda c: c["n"] in [1, 2], "n"),
    "max": (lambda c: max(c["n"], 2), "n"),
    "int()": (lambda c: int(c["n"]), "n"),
    "float()": (lambda c: float(c["n"]), "n"),
    "item()": (lambda c: c["n"].item(), "n"),
    "tolist()": (lambda c: c["x"].tolist(), "x"),
    "range": (lambda c: list(range(c["n"])), "n"),
    "index of a list": (lambda c: [1, 2, 3][c["n"]], "n"),
    "slice": (lambda c: c["x"][: c["n"]], ""),
    "boolean index": (lambda c: c["x"][c["x"] > 0], ""),
    "index of another dtype": (lambda c: c["m"][c["x"]], ""),
    "assignment to an item": (assign, ""),
    "item of a numpy array": (put_into_numpy, ""),
    "numpy function": (lambda c: np.sin(c["x"]), "x"),
    "index of a numpy array": (lambda c: np.arange(5)[c["n"]], "n"),
    "format": (lambda c: f"{c['x']:.2f}", ""),
    "key of a dict": (lambda c: {c["n"]: 1}, ""),
    "missing attribute": (lambda c: c["x"].rows, ""),
    "zeros": (lambda c: jnp.zeros(c["n"]), "n"),
    "full": (lambda c: jnp.full((c["n"], 2), 0.0), "n"),
    "eye": (lambda c: jnp.eye(c["n"]), "n"),
    "arange": (lambda c: jnp.arange(c["n"]), "n"),
    "linspace": (lambda c: jnp.linspace(0, 1, c["n"]), "n"),
    "reshape": (lambda c: c["x"].reshape(c["n"], 1), "n"),
    "repeat": (lambda c: jnp.repeat(c["x"], c["n"]), "n"),
    "axis": (lambda c: jnp.sum(c["m"], axis=c["n"]), "n"),
    "shape of random numbers": (
        lambda c: jax.random.normal(jax.random.key(0), (c["n"],)),
        "n",
    ),
    "no random key": (lambda c: jax.random.normal(c["x"]), ""),
    "length of a scan": (
        lambda c: lax.scan(lambda s, _: (s, s), 0.0, None, length=c["n"]),
        "n",
    ),
    "nonzero": (lambda c: jnp.nonzero(c["x"]), ""),
    "unique": (lambda c: jnp.unique(c["x"]), ""),
    "shapes of a product": (lambda c: c["x"] @ c["m"], ""),
    "shapes of a sum": (lambda c: c["x"] + jnp.ones(7), ""),
    "shapes of parts": (lambda c: jnp.concatenate([c["x"], c["m"]]), ""),
    "sizes under vmap": (lambda c: jax.vmap(jnp.add)(c["x"], c["m"]), ""),
    "carry of a scan": (
        lambda c: lax.scan(lambda s, a: (jnp.int32(1), a), 0.0, c["x"]),
        "",
    ),
    "branches of a cond": (
        lambda c: lax.cond(True, lambda a: a, lambda a: a.astype(int), c["x"]),
        "",
    ),
    "pytree of a while_loop": (
        lambda c: lax.while_loop(lambda s: s[0] > 0, lambda s: [s[0] - 1], (c["n"],)),
        "",
    ),
    "gradient of an array": (lambda c: jax.grad(lambda x: x)(c["x"]), ""),
    "gradient by an integer": (lambda c: jax.grad(lambda n: n * 1.0)(c["n"]), ""),
    "traced static argument": (
        lambda c: jax.jit(lambda a, n: a * n, static_argnums=1)(c["x"], c["n"]),
        "",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_common_mistake_is_explained_as_well_as_by_jax(name):
    fun, arrays = MISTAKES[name]
    expected, text = outcome(jax.jit, fun)
    error, ours = outcome(autojit.jit, fun)
    assert type(error) is type(expected)
    notes = notes_of(error)
    numbers = re.findall(r"leaves\[(\d+)\]", ours)
    assert {f"leaves[{number}]" for number in numbers} == {
        note.partition(" ")[0] for note in notes if note.startswith("leaves")
    }
    assert with_paths(ours, notes) == text
    assert all(f"c[{array!r}]" in with_paths(ours, notes) for array in arrays)


def test_what_stands_in_for_static_argnums_is_said():
    """JAX advises an option that there is none of."""
    error, text = outcome(autojit.jit, lambda c: jnp.zeros(c["n"] + 1))
    assert "static_argnums" in text
    assert any("a Python number is static" in note for note in notes_of(error))
    # That is about a function of JAX, and arrays.
    error, text = outcome(autojit.jit, lambda c: jnp.sin("text"))
    assert "static_argnums" in text
    assert notes_of(error) == []


def test_a_tracer_hidden_in_an_object_of_a_result_has_a_path():
    class Box:
        pass

    def hide(c):
        box = Box()
        box.get = lambda: c["x"]
        return {"box": [box]}

    error, text = outcome(autojit.jit, hide)
    assert type(error) is jax.errors.UnexpectedTracerError
    assert "result['box'][0].get.__closure__[0]['n']" in text


def test_a_leaked_tracer_is_explained_as_by_jax():
    """Also that no frame of ours is among the places where it was made."""
    leaked = []

    def leak(c):
        leaked.append(c["x"] * 2)

    texts = []
    for jit in jax.jit, autojit.jit:
        jit(leak)(arguments())
        with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
            leaked[-1] + 1
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_an_error_of_leak_checking_says_which_array_it_is():
    leaked = []
    f = autojit.jit(lambda c: leaked.append(c["x"]))
    with (
        jax.checking_leaks(),
        pytest.raises(Exception, match=r"(?s)Leaked trace.*leaves\[1\]") as caught,
    ):
        f(arguments())
    assert notes_of(caught.value) == ["leaves[1] is args[0]['x']"]
    assert f.cache_info().currsize == 0


def test_a_deleted_array_is_named(x):
    f = autojit.jit(lambda c, y: {"x": c["x"] + y}, keep_unused=True)
    donating = autojit.jit(lambda c, y: {"x": c["x"] + y}, donate_argnums=0)
    c = {"x": x, "name": "c"}
    for call in f, donating:
        call({"x": x + 1, "name": "c"}, x)
    donating(c, jnp.ones(3))
    for call in f, donating, autojit.jit(lambda c, y: c["x"] * y):
        with pytest.raises((RuntimeError, ValueError), match="deleted") as caught:
            call(c, jnp.ones(3))
        assert notes_of(caught.value) == [
            "args[0]['x'] is a deleted array: it may have been donated before, by "
            "itself or as the argument of a function that handed it back "
            "untouched (forward=False makes copies)"
        ]


def test_an_array_that_is_donated_twice_is_named(x):
    """XLA counts neither arrays that are not used, nor objects."""
    f = autojit.jit(
        lambda c: {"a": c["a"] + 1, "b": c["b"] + 2, "u": 0}, donate_argnums=0
    )
    with pytest.raises((RuntimeError, ValueError), match="donate the same") as caught:
        f({"unused": jnp.ones(2), "a": x, "b": x})
    assert notes_of(caught.value) == ["args[0]['a'] and args[0]['b'] are one array"]


def test_an_array_that_is_donated_and_passed_besides_is_named(x):
    f = autojit.jit(lambda a, b: {"w": a["w"] + b["w"]}, donate_argnums=0)
    with pytest.raises((RuntimeError, ValueError), match="donated in the") as caught:
        f({"w": x}, {"w": x})
    assert notes_of(caught.value) == ["args[0]['w'] and args[1]['w'] are one array"]


def test_mutable_arrays_that_may_not_be_passed_or_returned_are_named(x):
    ref = jax.new_ref(x)
    with pytest.raises(ValueError, match="only one reference") as caught:
        autojit.jit(lambda c: c["a"][...] + c["b"][...])({"a": ref, "b": ref})
    assert notes_of(caught.value) == [
        "leaves[0] is args[0]['a']",
        "leaves[1] is args[0]['b']",
    ]
    with pytest.raises(ValueError, match="closed over") as caught:
        autojit.jit(lambda c: c["a"][...] + ref[...])({"a": ref})
    assert notes_of(caught.value) == ["leaves[0] is args[0]['a']"]
    with pytest.raises(ValueError, match="cannot be returned") as caught:
        autojit.jit(lambda c: {"sum": x + 1, "new": [jax.new_ref(c["x"])]})({"x": x})
    assert notes_of(caught.value) == ["result[1] is result['new'][0]"]


def test_debug_nans_says_which_operation_it_was():
    texts = []
    for jit in jax.jit, autojit.jit:
        f = jit(lambda c: jnp.log(c["x"]) * 2)
        with jax.debug_nans(True):
            f({"x": jnp.ones(3)})
            with pytest.raises(FloatingPointError) as caught:
                f({"x": -jnp.ones(3)})
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "log" in texts[0]


# Which function an error is about.


def test_an_error_is_noted_by_the_dispatcher_whose_arrays_it_means():
    @autojit.jit
    def inner(pair):
        return 1 if pair["b"] > 0 else 2

    @autojit.jit
    def outer(c):
        return inner({"a": c["x"], "b": c["n"]})

    error, _ = outcome(lambda fun: outer, None)
    assert notes_of(error) == ["leaves[1] is args[0]['b']"]


def test_an_error_about_the_arrays_of_an_outer_function_is_noted_by_that():
    def outer(c):
        @autojit.jit
        def inner(pair):
            return 1 if c["n"] else pair["a"]

        return inner({"a": c["x"], "b": [c["m"]]})

    error, text = outcome(autojit.jit, outer)
    assert "leaves[0]" in text
    assert "the function outer at" in text
    assert notes_of(error) == ["leaves[0] is args[0]['n']"]


def test_an_error_about_leaves_of_someone_else_has_no_note():
    def outer(c):
        return jax.jit(lambda *leaves: 1 if leaves[1] > 0 else 2)(c["x"], c["n"])

    error, text = outcome(autojit.jit, outer)
    assert "leaves[1]" in text
    assert notes_of(error) == []

    def own(c):
        raise ValueError("leaves[0] is mine, and has been deleted")

    error, _ = outcome(autojit.jit, own)
    assert notes_of(error) == []


def test_an_exception_that_cannot_be_printed_passes_as_it_is():
    class Unprintable(Exception):
        def __str__(self):
            raise HostileError("str")

        __repr__ = __str__

    for error in Unprintable("leaves[0]"), Unprintable(Unprintable()), Unprintable():

        def fail(c, error=error):
            raise error

        with pytest.raises(Unprintable) as caught:
            autojit.jit(fail)(arguments())
        assert caught.value is error


def branch(w, c):
    return 1 if w[0] > c["n"] else 2


class Model:
    def __init__(self):
        self.w = jnp.arange(3.0)

    def method(self, c):
        return branch(self.w, c)

    def __call__(self, c):
        return branch(self.w, c)


@functools.wraps(branch)
def wrapper(*args):
    return branch(*args)


@pytest.mark.parametrize(
    ("fun", "name", "written"),
    [
        (Model(), "Model.__call__", Model.__call__),
        (Model().method, "method", Model.method),
        (functools.partial(branch, jnp.ones(3)), "branch", branch),
        (functools.partial(wrapper, jnp.ones(3)), "branch", branch),
    ],
    ids=["object", "method", "partial", "wrapped"],
)
def test_an_error_names_the_function_that_was_written(fun, name, written):
    error, text = outcome(autojit.jit, fun)
    line = written.__code__.co_firstlineno
    assert f"the function {name} at {__file__}:{line} " in text
    assert notes_of(error)[-1] == "leaves[1] is args[0]['n']"
