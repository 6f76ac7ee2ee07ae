"""Donation: `donate_argnums` and `donate_argnames`, in the words of `jax.jit`."""

import copy
import functools
import inspect
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import walk_leaves
from kinds import Data, Matmul, Plain, Slots
from numpy.testing import assert_array_equal

import autojit


def arrays(count):
    """Return arrays that nothing else needs."""
    return [jnp.arange(3.0) + i for i in range(count)]


def deleted(*trees):
    """Say for each array in each tree whether it is gone."""
    return [leaf.is_deleted() for tree in trees for leaf in walk_leaves(tree)]


def warned(fun, *args, **kwargs):
    """Return what a call returns, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fun(*args, **kwargs)
    return result, [(w.category, str(w.message)) for w in caught]


def outcomes(wrapped, calls):
    """Say of each call what it raises or returns, what it donates and warns of.

    `calls` are pairs: how many arrays by position, and which names by keyword.
    """
    events = []
    for count, names in calls:
        args = arrays(count)
        kwargs = dict(zip(names, arrays(len(names)), strict=True))
        try:
            result, messages = warned(wrapped, *args, **kwargs)
        except Exception as error:
            events.append((type(error), deleted(args, kwargs)))
        else:
            values = [np.array(leaf).tolist() for leaf in jax.tree.leaves(result)]
            events.append((deleted(args, kwargs), values, messages))
    return events


def assert_as_jax(fun, calls, options, **ours):
    """Check that donation does what it does under `jax.jit` with these options.

    `ours` are options for autojit besides, or those that say the same in another way.
    """
    expected = outcomes(jax.jit(fun, **options), calls)
    assert outcomes(autojit.jit(fun, **(options | ours)), calls) == expected


# Functions of arrays alone, which `jax.jit` can run too.


def two(x, y):
    return x + 1, y * 2


def crossed(x, y):
    return {"y": x * y, "x": x - y}


def with_default(x, y=2.0):
    return x + 1, x * 2


def positional_only(x, /, y):
    return x + 1, y * 2


def keyword_only(x, *, y):
    return x + 1, y * 2


def rest(x, *rest):
    return x + 1, [r * 2 for r in rest]


def named(x, **named):
    return x + 1, {name: value * 2 for name, value in named.items()}


def everything(x, /, y, *rest, key, **named):
    values = [x, y, *rest, key, *named.values()]
    return [value * 2 for value in values]


def returned(x, y):
    return x, y


def scalar(x, y):
    return x.sum(), y + 1


def unused(x, y):
    return y + 1


FIRST, SECOND = {"donate_argnums": 0}, {"donate_argnums": 1}
BY_NAME = {"donate_argnames": "y"}

BOTH = [(2, ()), (1, ("y",)), (0, ("y", "x"))]
RESTS = [(1, ()), (2, ()), (4, ())]
EVERYTHING = [(2, ("key",)), (4, ("key", "a")), (1, ("y", "key")), (4, ("a", "key"))]

CASES = {
    "first": (two, BOTH, FIRST),
    "second": (two, BOTH, SECOND),
    "both": (two, BOTH, {"donate_argnums": (0, 1)}),
    "in another order": (two, BOTH, {"donate_argnums": (1, 0)}),
    "list": (two, BOTH, {"donate_argnums": [1]}),
    "set": (two, BOTH, {"donate_argnums": {1}}),
    "range": (two, BOTH, {"donate_argnums": range(2)}),
    "twice": (two, BOTH, {"donate_argnums": (0, 0)}),
    "none": (two, BOTH, {"donate_argnums": ()}),
    "None": (two, BOTH, {"donate_argnums": None, "donate_argnames": None}),
    "numpy int": (two, BOTH, {"donate_argnums": np.int64(1)}),
    "bool": (two, BOTH, {"donate_argnums": True}),
    "first by name": (two, BOTH, {"donate_argnames": "x"}),
    "second by name": (two, BOTH, BY_NAME),
    "names": (two, BOTH, {"donate_argnames": ("x", "y")}),
    "list of names": (two, BOTH, {"donate_argnames": ["y"]}),
    "set of names": (two, BOTH, {"donate_argnames": {"y"}}),
    "names twice": (two, BOTH, {"donate_argnames": ["x", "x"]}),
    "no names": (two, BOTH, {"donate_argnames": ()}),
    "number and name": (two, BOTH, FIRST | {"donate_argnames": "x"}),
    "another name": (two, BOTH, FIRST | BY_NAME),
    "number and no name": (two, BOTH, FIRST | {"donate_argnames": ()}),
    "crossed": (crossed, BOTH, FIRST),
    "crossed, both": (crossed, BOTH, {"donate_argnums": (0, 1)}),
    "returned": (returned, BOTH, FIRST),
    "returned, both": (returned, BOTH, {"donate_argnums": (0, 1)}),
    "unusable": (scalar, BOTH, FIRST),
    "unused": (unused, BOTH, FIRST),
    # Another function: JAX would take the program of the one above.
    "unused, kept": (lambda x, y: y + 1, BOTH, FIRST | {"keep_unused": True}),
    "default": (with_default, [(1, ()), (2, ()), (1, ("y",))], FIRST),
    "positional only": (positional_only, BOTH[:2], FIRST),
    "positional only, the other": (positional_only, BOTH[:2], SECOND),
    "positional only, the other by name": (positional_only, BOTH[:2], BY_NAME),
    "keyword only": (keyword_only, BOTH[1:], BY_NAME),
    "keyword only, the other": (keyword_only, BOTH[1:], FIRST),
    "one of the rest": (rest, RESTS, SECOND),
    "two of the rest": (rest, RESTS, {"donate_argnums": (1, 3)}),
    "more than the rest": (rest, RESTS, {"donate_argnums": 5}),
    "before the rest": (rest, RESTS, {"donate_argnames": "x"}),
    "one of the names": (
        named,
        [(1, ()), (1, ("a",)), (1, ("b", "a")), (0, ("a", "x"))],
        {"donate_argnames": "a"},
    ),
    "the name of the names": (
        named,
        [(1, ()), (1, ("a",)), (1, ("named", "a"))],
        {"donate_argnames": "named"},
    ),
    "before the names": (named, [(1, ()), (1, ("a",)), (0, ("a", "x"))], FIRST),
    "everything, by number": (everything, EVERYTHING, {"donate_argnums": (1, 2)}),
    "everything, by name": (
        everything,
        EVERYTHING,
        {"donate_argnames": ("key", "a", "y")},
    ),
    "partial": (functools.partial(crossed, 2.0), [(1, ()), (0, ("y",))], FIRST),
    "partial with keyword": (
        functools.partial(crossed, y=2.0),
        [(1, ()), (0, ("x",))],
        FIRST,
    ),
    "partial with keyword, by name": (
        functools.partial(two, y=2.0),
        [(1, ()), (1, ("y",)), (0, ("x",))],
        BY_NAME,
    ),
    "builtin": (jnp.add, [(2, ())], FIRST),
}


@pytest.mark.parametrize(("fun", "calls", "options"), CASES.values(), ids=CASES)
def test_what_is_donated_is_what_jax_donates(fun, calls, options):
    assert_as_jax(fun, calls, options)


@pytest.mark.parametrize("name", ["crossed", "returned", "returned, both", "unusable"])
def test_what_is_donated_does_not_depend_on_forwarding(name):
    assert_as_jax(*CASES[name], forward=False)


class Model:
    """Without arrays of its own, so that `jax.jit` can run it too."""

    def method(self, x, y):
        return x + 1, y * 2

    __call__ = method

    @classmethod
    def of_class(cls, x, y):
        return x + 1, y * 2

    @staticmethod
    def static(x, y):
        return x + 1, y * 2


BOUND = {
    "method": Model().method,
    "instance": Model(),
    "class method": Model.of_class,
    "static method": Model.static,
}


@pytest.mark.parametrize("fun", BOUND.values(), ids=BOUND)
@pytest.mark.parametrize(
    "options",
    [
        FIRST,
        SECOND,
        {"donate_argnums": (0, 1)},
        BY_NAME,
        {"donate_argnames": ["x", "y"]},
    ],
    ids=str,
)
def test_positions_of_a_callable_object_are_those_of_its_call(fun, options):
    assert_as_jax(fun, BOTH[::2], options)


@pytest.mark.parametrize(
    ("fun", "calls"),
    [
        (two, BOTH),
        (with_default, [(1, ()), (2, ())]),
        (positional_only, BOTH[:2]),
        (Model().method, BOTH),
        (Model(), BOTH),
        (functools.partial(lambda a, x, y: (x + a, y * a), 2.0), BOTH),
    ],
    ids=["function", "default", "positional only", "method", "instance", "partial"],
)
def test_a_negative_number_counts_from_the_end(fun, calls):
    """Some versions of JAX take a negative number, and then donate nothing."""
    for negative, positive in [(-1, 1), (-2, 0), ((-2, 1), (0, 1))]:
        assert_as_jax(fun, calls, {"donate_argnums": positive}, donate_argnums=negative)


ERRORS = {
    "out of range": (two, {"donate_argnums": 2}),
    "one out of range": (two, {"donate_argnums": (0, 2)}),
    "out of range below": (two, {"donate_argnums": -3}),
    "far out of range": (two, {"donate_argnums": 10**30}),
    "position of a keyword": (keyword_only, {"donate_argnums": 1}),
    "position of names": (named, {"donate_argnums": 1}),
    "unknown name": (two, {"donate_argnames": "z"}),
    "one unknown name": (two, {"donate_argnames": ("x", "z")}),
    "empty name": (two, {"donate_argnames": ""}),
    "two names in one": (two, {"donate_argnames": "x y"}),
    "positional only by name": (positional_only, {"donate_argnames": "x"}),
    "rest by name": (rest, {"donate_argnames": "rest"}),
    "str as number": (two, {"donate_argnums": "0"}),
    "float as number": (two, {"donate_argnums": 1.0}),
    "float among numbers": (two, {"donate_argnums": (0, 1.0)}),
    "name among numbers": (two, {"donate_argnums": (0, "y")}),
    "None among numbers": (two, {"donate_argnums": (None,)}),
    "dict as numbers": (two, {"donate_argnums": {"x": 0}}),
    "number as name": (two, {"donate_argnames": 0}),
    "number among names": (two, {"donate_argnames": ("x", 1)}),
    "bytes as name": (two, {"donate_argnames": b"x"}),
    "None among names": (two, {"donate_argnames": [None]}),
    "range of a method": (Model().method, {"donate_argnums": 2}),
    "range of an instance": (Model(), {"donate_argnums": 2}),
    "range of a partial": (functools.partial(two, 1.0), {"donate_argnums": 1}),
    "keyword of a partial": (functools.partial(two, y=1.0), {"donate_argnums": 1}),
}


@pytest.mark.parametrize(("fun", "options"), ERRORS.values(), ids=ERRORS)
def test_the_errors_are_those_of_jax(fun, options):
    with pytest.raises((ValueError, TypeError)) as expected:
        jax.jit(fun, **options)
    for wrap in (
        lambda: autojit.jit(fun, **options),
        lambda: autojit.jit(**options)(fun),
    ):
        with pytest.raises(expected.type):
            wrap()


def test_the_error_about_a_name_names_it():
    with pytest.raises(ValueError, match="no_such_name"):
        autojit.jit(two, donate_argnames="no_such_name")
    with pytest.raises(ValueError, match="7"):
        autojit.jit(two, donate_argnums=7)


# Which numbers and names are meant is found out when wrapping, and copied.


def test_what_the_options_were_made_of_may_change():
    numbers, names = [0], ["x"]
    by_number = autojit.jit(two, donate_argnums=numbers)
    by_name = autojit.jit(two, donate_argnames=names)
    numbers.append(1)
    names.append("y")
    for f in (by_number, by_name):
        x, y = arrays(2)
        f(x, y)
        assert deleted(x, y) == [True, False]


def test_iterators_of_numbers_and_names_are_read_once():
    for option, value in [("donate_argnames", "x"), ("donate_argnums", 0)]:
        options = {option: iter([value])}
        assert_as_jax(two, BOTH, {option: value}, **options)


def test_a_function_without_a_signature():
    class Unsigned:
        def __call__(self, *args):
            return [arg + 1 for arg in args]

        @property
        def __signature__(self):
            raise ValueError("no signature")

    with pytest.raises(ValueError, match="signature"):
        inspect.signature(Unsigned())
    for number in (0, 1):
        assert_as_jax(Unsigned(), [(2, ())], {"donate_argnums": number})


# Arguments that are objects: all arrays in them are donated, and no others.


def train(state, batch, *, rate=0.5):
    state.w = state.w - rate * batch["x"]
    state.history.append(state.loss)
    state.loss = (batch["x"] ** 2).sum() + state.loss
    return state


def make_state():
    (w, m) = arrays(2)
    return Plain(w=w, history=[m, "start", 0], loss=jnp.ones(()), name="n")


@pytest.mark.parametrize(
    "options",
    [{"donate_argnums": 0}, {"donate_argnums": -2}, {"donate_argnames": "state"}],
    ids=str,
)
@pytest.mark.parametrize("by_keyword", [False, True])
def test_all_arrays_of_an_object_are_donated(options, by_keyword):
    # Two positional parameters: the keyword-only one does not count.
    f = autojit.jit(train, **options)
    f.clear_cache()
    before_all = f.cache_info().traces
    batch = {"x": jnp.ones(3), "more": [jnp.zeros(2)]}
    for _ in range(3):
        state = make_state()
        before = walk_leaves(state)
        expected = train(make_state(), batch)
        args, kwargs = (state, batch), {}
        if by_keyword:
            args, kwargs = (), {"batch": batch, "state": state}
        result = f(*args, **kwargs)
        assert deleted(state) == [True] * 3
        assert deleted(before) == [True] * 3
        assert deleted(batch) == [False] * 2
        assert deleted(result) == [False] * 4
        assert_array_equal(result.w, expected.w)
        assert_array_equal(result.loss, expected.loss)
        assert [type(item) for item in result.history] == [
            type(item) for item in expected.history
        ]
    assert f.cache_info().traces == before_all + 1


SUBTREES = {
    "array": lambda a, b: a,
    "list": lambda a, b: [a, 1, b],
    "tuple": lambda a, b: (a, (b, "s")),
    "dict": lambda a, b: {"a": a, 2: b},
    "instance": lambda a, b: Plain(a=a, n=1, b=[b]),
    "slots": lambda a, b: Slots(a, {"b": b}),
    "dataclass": lambda a, b: Data(a, b),
    "partial": lambda a, b: functools.partial(two, a, y=b),
    "method": lambda a, b: Plain(a=a, factor=b).scaled,
    "callable": lambda a, b: Matmul(a, b),
    "cycle": lambda a, b: (lambda p: (setattr(p, "me", p), p)[1])(Plain(a=a, b=b)),
    "nothing": lambda a, b: {"n": 1},
}


def halves(tree):
    return [leaf * 0.5 for leaf in walk_leaves(tree)]


@pytest.mark.parametrize("make", SUBTREES.values(), ids=SUBTREES)
@pytest.mark.parametrize(
    ("options", "donated"),
    [
        ({"donate_argnums": 0}, (True, False)),
        ({"donate_argnames": "q"}, (False, True)),
    ],
    ids=str,
)
def test_the_arrays_of_any_object_are_donated(make, options, donated):
    f = autojit.jit(lambda p, q: [halves(p), halves(q)], **options)
    for how in ("position", "keyword"):
        a, b, c, d = arrays(4)
        p, q = make(a, b), make(c, d)
        expected = [[leaf * 0.5 for leaf in walk_leaves(tree)] for tree in (p, q)]
        leaves = [walk_leaves(p), walk_leaves(q)]
        result = f(p, q) if how == "position" else f(q=q, p=p)
        for was, are, values, wanted in zip(
            donated, leaves, result, expected, strict=True
        ):
            assert deleted(are) == [was] * len(are)
            for value, want in zip(values, wanted, strict=True):
                assert_array_equal(value, want)


def test_the_rest_and_the_names_may_be_objects():
    def f(x, *rest, key, **named):
        return jax.tree.map(lambda a: a + 1, [halves((x, rest, key, named))])

    by_number = autojit.jit(f, donate_argnums=(2,))
    by_name = autojit.jit(f, donate_argnames=("key", "extra"))
    for _ in range(2):
        a, b, c, d, e, g = arrays(6)
        by_number(a, Plain(a=b), Plain(a=c), [d], key=e, extra=Plain(a=g))
        assert deleted(a, b, c, d, e, g) == [False, False, True, False, False, False]
        a, b, c, d, e, g = arrays(6)
        by_name(a, Plain(a=b), extra=Plain(a=c, b=[d]), key=[e], other=[g])
        assert deleted(a, b, c, d, e, g) == [False, False, True, True, True, False]


def test_an_object_that_is_in_two_arguments_of_which_one_is_donated():
    """Its array is one leaf, and it is in the donated argument."""
    for number in (0, 1):
        f = autojit.jit(lambda p, q: [p.a + 1, p is q], donate_argnums=number)
        for _ in range(2):
            (a,) = arrays(1)
            shared = Plain(a=a)
            result, same = f(shared, shared)
            assert same is True
            assert deleted(a) == [True]
            assert_array_equal(result, jnp.arange(3.0) + 1)


def test_an_object_that_is_shared_deep_in_two_arguments():
    for number in (0, 1):
        f = autojit.jit(
            lambda p, q: [p["k"][0].a + q[0].a, p["x"] * 2], donate_argnums=number
        )
        a, x = arrays(2)
        shared = Plain(a=a)
        f({"k": [shared], "x": x}, (shared,))
        assert deleted(a, x) == [True, number == 0]


@pytest.mark.parametrize(
    ("donated", "use"),
    [
        (0, lambda f, a, b: f(a, a)),
        ((0, 1), lambda f, a, b: f(a, a)),
        (0, lambda f, a, b: [f(a, b), f(a, b)]),
        (0, lambda f, a, b: [f(a, b), f(b, a)]),
    ],
    ids=["and passed again", "twice", "before", "before, in the other place"],
)
def test_what_jax_says_of_an_array_that_was_donated(donated, use):
    # In one of two ways, whichever part of JAX finds it: that may differ between runs.
    for wrap in (jax.jit, autojit.jit):
        f = wrap(two, donate_argnums=donated)
        with pytest.raises((ValueError, RuntimeError), match=r"donate|been deleted"):
            use(f, *arrays(2))


def test_an_array_that_is_donated_and_handed_back():
    """JAX never sees that it is used twice, since it is no output."""
    f = autojit.jit(lambda p, q: [p["w"] + 1, {"q": q}], donate_argnums=0)
    for _ in range(2):  # a miss and a hit
        a, b = arrays(2)
        assert f({"w": a}, b)[1]["q"] is b
        with pytest.raises(
            ValueError, match=r"returns args\[1\], .* deleted.* of args\[0\]\['w'\]"
        ):
            f({"w": b}, b)
    (a,) = arrays(1)
    view = a.addressable_data(0)  # another array that has the same memory
    with pytest.raises(ValueError, match=r"args\[1\], .*perhaps args\[0\]\['w'\]"):
        f({"w": a}, view)


def test_an_array_that_is_donated_without_need_and_handed_back():
    f = autojit.jit(lambda p, q: q, donate_argnums=0)
    for _ in range(2):
        (a,) = arrays(1)
        assert f(a, a) is a
        assert deleted(a) == [False]


def test_a_tracer_that_is_donated_and_handed_back():
    f = autojit.jit(lambda p, q: [p + 1, q], donate_argnums=0)
    result = jax.jit(lambda a: f(a, a))(jnp.ones(3))
    assert_array_equal(result[0], [2, 2, 2])
    assert_array_equal(result[1], [1, 1, 1])


def test_arrays_that_a_donated_function_holds_are_constants():
    f = autojit.jit(lambda fn, x: fn(x), donate_argnums=0)
    (w,) = arrays(1)
    for _ in range(2):
        assert_array_equal(f(lambda y: y + w, jnp.ones(3)), w + 1)
    assert deleted(w) == [False]
    assert f.cache_info().traces == 1


def test_statics_can_be_donated_to_no_effect():
    f = autojit.jit(lambda n, x: x * n, donate_argnums=0)
    (x,) = arrays(1)
    assert_array_equal(f(2.0, x), x * 2)
    assert_array_equal(f(3.0, x), x * 3)
    assert f.cache_info().traces == 2


def test_an_argument_that_is_static_in_one_call_and_not_in_the_other():
    f = autojit.jit(lambda p, x: [p * 2, x], donate_argnums=0)
    for p in (2.0, jnp.ones(3), 3, jnp.ones(3) + 1):
        x = jnp.zeros(2)
        doubled, same = f(p, x)
        assert same is x
        assert type(doubled) is type(p) or isinstance(p, jax.Array)
        assert deleted(p) == [True] * isinstance(p, jax.Array)


def test_a_default_is_not_donated():
    default = jnp.arange(3.0)

    def fun(x, y=default):
        return x + y, y * 2

    f = autojit.jit(fun, donate_argnums=1)
    for _ in range(2):
        f(jnp.ones(3))
        assert deleted(default) == [False]
        (y,) = arrays(1)
        f(jnp.ones(3), y)
        assert deleted(y) == [True]


def test_several_shapes_of_one_specialization():
    f = autojit.jit(lambda p, q: [p.a + 1, q], donate_argnums=0)
    for n in (2, 3, 2, 3):
        a, q = jnp.ones(n), jnp.ones(n)
        result = f(Plain(a=a), q)
        assert deleted(a, q) == [True, False]
        assert result[1] is q
    assert f.cache_info()[:4] == (3, 1, 2, 1)


def test_typed_keys_are_donated_as_by_jax():
    def fun(key, x):
        return jax.random.fold_in(key, 1), x + 1

    seen = []
    for wrap in (jax.jit, autojit.jit):
        key = jax.random.key(0)
        wrap(fun, donate_argnums=0)(key, jnp.ones(3))
        seen.append(key.is_deleted())
    assert seen[0] == seen[1]


def test_numpy_arrays_are_static_and_stay():
    f = autojit.jit(lambda a, x: [x + a, a], donate_argnums=0)
    a = np.arange(3.0, dtype=np.float32)
    for _ in range(2):
        f(a, jnp.ones(3))
    assert_array_equal(a, np.arange(3.0))


# Methods.


class Trainer:
    def __init__(self, w):
        self.w = w
        self.steps = 3

    def step(self, x, y):
        return self.w + x, self.w * y

    __call__ = step
    by_number = autojit.jit(step, donate_argnums=1)
    by_name = autojit.jit(step, donate_argnames=("x", "y"))
    consumed = autojit.jit(step, donate_argnums=0)
    consumed_by_name = autojit.jit(step, donate_argnames="self")


def of_array(w, x, y):
    return w + x, y


# What is called, and which of the array of the trainer, w, and x, and y are donated.
METHODS = {
    # A decorated method counts its instance, and may donate it.
    "decorated": (lambda t, x, y: t.by_number(x, y), "x"),
    "keywords": (lambda t, x, y: t.by_number(y=y, x=x), "x"),
    "names": (lambda t, x, y: t.by_name(x, y=y), "xy"),
    "instance": (lambda t, x, y: t.consumed(x, y), "w"),
    "self": (lambda t, x, y: t.consumed_by_name(x, y), "w"),
    # What is bound when it is wrapped does not count, and its arrays stay.
    "wrapped": (lambda t, x, y: autojit.jit(t.step, **FIRST)(x, y), "x"),
    "wrapped, by name": (lambda t, x, y: autojit.jit(t.step, **BY_NAME)(x, y), "y"),
    "callable": (lambda t, x, y: autojit.jit(t, **FIRST)(x, y), "x"),
    "callable, by name": (lambda t, x, y: autojit.jit(t, **BY_NAME)(x, y), "y"),
    "partial": (
        lambda t, x, y: autojit.jit(functools.partial(of_array, t.w), **FIRST)(x, y),
        "x",
    ),
}


@pytest.mark.parametrize(("call", "donated"), METHODS.values(), ids=METHODS)
def test_which_arrays_a_method_donates(call, donated):
    for _ in range(2):  # a miss and a hit
        w, x, y = arrays(3)
        result, _ = call(Trainer(w), x, y)
        assert_array_equal(result, jnp.arange(3.0) * 2 + 1)
        assert deleted(w, x, y) == [name in donated for name in "wxy"]


def test_a_wrapped_object_that_is_a_donated_argument_too():
    class Model:
        def __init__(self, w):
            self.w = w

        def __call__(self, other, x):
            return self.w + other.w + x

    w, v, x = arrays(3)
    model = Model(w)
    f = autojit.jit(model, donate_argnums=0)
    f(Model(v), x)
    assert deleted(w, v, x) == [False, True, False]
    f(model, x)
    assert deleted(w, x) == [True, False]


# In transformations, donation is the business of the outermost call.

TRANSFORMATIONS = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "grad": lambda f: jax.grad(lambda x, y: sum(a.sum() for a in f(x, y))),
    "jit of vmap": lambda f: jax.jit(jax.vmap(f)),
    "jvp": lambda f: lambda x, y: jax.jvp(f, (x, y), (x + 1, y + 1)),
    "scan": lambda f: lambda x, y: jax.lax.scan(lambda c, r: f(c, r), y[0], x),
    "make_jaxpr": lambda f: lambda x, y: len(jax.make_jaxpr(f)(x, y).jaxpr.outvars),
    "eval_shape": lambda f: lambda x, y: [a.shape for a in jax.eval_shape(f, x, y)],
}


@pytest.mark.parametrize("transform", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
@pytest.mark.parametrize("inner", [False, True])
def test_in_a_transformation_it_is_donated_as_by_jax(transform, inner):
    seen = []
    for wrap in (jax.jit, autojit.jit):
        f = wrap(two, donate_argnums=0)
        g = (lambda x, y, f=f: f(x * 1.0, y)) if inner else f
        x, y = arrays(2)
        result, _ = warned(transform(g), x, y)
        values = [np.array(leaf).tolist() for leaf in jax.tree.leaves(result)]
        seen.append((deleted(x, y), values))
    assert seen[0] == seen[1]


def test_donation_in_a_dispatcher_in_a_dispatcher():
    inner = autojit.jit(lambda state: Plain(w=state.w + 1), donate_argnums=0)
    outer = autojit.jit(lambda state: [inner(state), inner(state), state.w])
    (w,) = arrays(1)
    for _ in range(2):
        one, two_, same = outer(Plain(w=w))
        assert_array_equal(one.w, two_.w)
        assert same is w
    assert deleted(w) == [False]
    donating = autojit.jit(lambda state: inner(state), donate_argnums=0)
    donating(Plain(w=w))
    assert deleted(w) == [True]


def test_nothing_is_donated_under_disable_jit():
    f = autojit.jit(train, donate_argnums=0)
    state = make_state()
    leaves = walk_leaves(state)
    with jax.disable_jit():
        f(state, {"x": jnp.ones(3)})
    assert deleted(leaves) == [False] * 3


def test_a_failed_trace_donates_nothing():
    @autojit.jit(donate_argnums=0)
    def f(x, fail):
        if fail:
            raise ValueError("failed")
        return x + 1

    (x,) = arrays(1)
    with pytest.raises(ValueError, match="failed"):
        f(x, True)
    assert deleted(x) == [False]
    f(x, False)
    assert deleted(x) == [True]


# Warnings.


def test_the_warning_about_unusable_buffers_is_that_of_jax():
    def fun(x, y):
        return x.sum() + y.sum()

    _, expected = warned(jax.jit(fun, donate_argnums=(0, 1)), *arrays(2))
    assert expected
    f = autojit.jit(fun, donate_argnums=(0, 1))
    assert [warned(f, *arrays(2))[1] for _ in range(2)] == [expected, []]
    f = autojit.jit(lambda tree: fun(tree.x, tree.y[0]), donate_argnums=0)
    x, y = arrays(2)
    assert warned(f, Plain(x=x, y=[y]))[1] == expected
    assert deleted(x, y) == [False, False]


def test_a_donated_array_that_can_be_used_is_no_reason_to_warn():
    f = autojit.jit(train, donate_argnums=0)
    assert warned(f, make_state(), {"x": jnp.ones(3)})[1] == []


def test_donation_can_save_an_array_that_is_returned():
    """The buffer goes from the argument to the result."""
    f = autojit.jit(lambda state: state, donate_argnums=0)
    x, y = arrays(2)
    pointer = x.unsafe_buffer_pointer()
    plain = jax.jit(lambda x: x, donate_argnums=0)
    reused = y.unsafe_buffer_pointer() == plain(y).unsafe_buffer_pointer()
    result = f(Plain(x=x, n=1))
    assert deleted(x) == [True]
    assert_array_equal(result.x, jnp.arange(3.0))
    assert (result.x.unsafe_buffer_pointer() == pointer) is reused


# Options and tables.


def test_a_copy_donates_too():
    f = autojit.jit(two, donate_argnums=0)
    copies = [copy.copy(f), copy.deepcopy(f), pickle.loads(pickle.dumps(f))]
    for g in copies:
        x, y = arrays(2)
        g(x, y)
        assert deleted(x, y) == [True, False]


def test_dispatchers_with_and_without_donation_share_nothing():
    def fun(x, y):
        return x + 1, y * 2

    for _ in range(3):  # they are made anew, and have what they had
        for options, expected in [
            ({}, [False, False]),
            (FIRST, [True, False]),
            (SECOND, [False, True]),
        ]:
            f = autojit.jit(fun, **options)
            x, y = arrays(2)
            f(x, y)
            assert deleted(x, y) == expected
            assert f.cache_info().traces == 1


def test_arrays_shared_with_another_argument_beside_a_closure():
    def closure():
        z = 3
        return lambda v: v + z

    shared = [jnp.ones(2)]
    f = autojit.jit(lambda g, a, b: b[0][0] + 1, donate_argnums=2)
    f(closure(), shared, [shared])
    assert shared[0].is_deleted()


class Owns:
    def __init__(self):
        self.w = jnp.ones(3)
        self.n = 2

    def __call__(self, x):
        return self.w * x * self.n

    step = __call__


@pytest.mark.parametrize("of", [lambda one: one, lambda one: one.step])
def test_the_arrays_of_what_is_called(of):
    one, y = Owns(), jnp.arange(3.0)
    f = autojit.jit(of(one), donate_argnames="self")
    np.testing.assert_array_equal(f(y), 2 * jnp.arange(3.0))
    assert one.w.is_deleted()
    assert not y.is_deleted()
    one.w = jnp.zeros(3)
    g = autojit.jit(of(one), donate_argnames=("x", "self"))
    g(y)
    assert one.w.is_deleted() or y.is_deleted()  # there is one result


def test_a_function_has_no_self():
    with pytest.raises(ValueError, match="self"):
        autojit.jit(lambda x: x, donate_argnames="self")
