"""Numbers and numpy arrays that are traced: by their paths, or where they change."""

import collections
import dataclasses
import functools
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autojit

X = jnp.arange(3.0)


@dataclasses.dataclass
class State:
    params: Any
    step: Any = 0
    name: str = "adam"


class Point(NamedTuple):
    x: Any
    y: Any


class Slots:
    __slots__ = ("n",)

    def __init__(self, n):
        self.n = n


class Reduced:
    def __init__(self, n):
        self.n = n

    def __getstate__(self):
        return {"n": self.n}

    def __setstate__(self, state):
        self.__dict__.update(state)


def traces(f):
    return f.cache_info().traces


# --- by path ---


def use(state, config, batch=None, *, lr=0.1):
    return state.params * lr * config["scale"] + state.step, state


PLACES = {
    "lr": lambda i: ((State(X), {"scale": 1.0}), {"lr": 0.1 + i}),
    "state.step": lambda i: ((State(X, i), {"scale": 1.0}), {}),
    "config['scale']": lambda i: ((State(X), {"scale": float(i)}), {}),
    'config["scale"]': lambda i: ((State(X), {"scale": float(i)}), {}),
    "config": lambda i: ((State(X), {"scale": float(i), "n": i}), {}),
    "args[1]['scale']": lambda i: ((State(X), {"scale": 1j * i}), {}),
    "kwargs['lr']": lambda i: ((State(X), {"scale": 1.0}), {"lr": i}),
    "batch": lambda i: ((State(X), {"scale": 1.0}, [np.full(2, i)]), {}),
    "batch[0]": lambda i: ((State(X), {"scale": 1.0}, [np.float32(i), "a"]), {}),
    "batch[0].x": lambda i: ((State(X), {"scale": 1.0}, (Point(i, "a"), 1)), {}),
    "batch.n": lambda i: ((State(X), {"scale": 1.0}, Slots(i)), {}),
    "batch.n.n": lambda i: ((State(X), {"scale": 1.0}, Reduced(Reduced(i))), {}),
    "batch[1]": lambda i: ((State(X), {"scale": 1.0}, collections.deque([0, i])), {}),
    "batch['a'][(1, 2)]": lambda i: (
        (State(X), {"scale": 1.0}, {"a": {(1, 2): i}}),
        {},
    ),
    "batch.args[0]": lambda i: (
        (State(X), {"scale": 1.0}, functools.partial(len, i)),
        {},
    ),
}


@pytest.mark.parametrize("path", PLACES)
def test_what_a_path_leads_to_is_traced(path):
    f = autojit.jit(use, traced=path, share=False)
    for i in range(3):
        args, kwargs = PLACES[path](i)
        expected = use(*args, **kwargs)[0]
        np.testing.assert_allclose(f(*args, **kwargs)[0], expected, rtol=1e-6)
    assert traces(f) == 1
    others = autojit.jit(use, share=False)
    for i in range(3):
        args, kwargs = PLACES[path](i)
        others(*args, **kwargs)
    assert traces(others) == 3


def test_several_paths_and_what_is_not_named():
    f = autojit.jit(use, traced=("state.step", "lr"))
    for i in range(3):
        f(State(X, i), {"scale": 1.0}, lr=float(i))
    assert traces(f) == 1
    f(State(X, 3, name="sgd"), {"scale": 1.0}, lr=0.5)
    f(State(X, 3), {"scale": 2.0}, lr=0.5)
    assert traces(f) == 3


def test_an_argument_by_place_and_by_name():
    f = autojit.jit(lambda x, n: x * n, traced="n")
    f(X, 1), f(X, 2), f(X, n=3), f(X, n=4)
    assert traces(f) == 2  # one each, as without


@pytest.mark.parametrize(
    "number", [2, 2.5, 2j, np.float32(2), np.int8(3), np.arange(3)]
)
def test_it_is_what_jax_makes_of_it(number):
    def kind(x, n):
        return n * 1, jnp.asarray(n).dtype.name, n + x

    f = autojit.jit(kind, traced="n")
    one, name, total = f(X, number)
    its, its_total = jax.jit(lambda x, n: (n * 1, n + x))(X, number)
    assert (one.dtype, one.weak_type) == (its.dtype, its.weak_type)
    assert name == its.dtype.name
    np.testing.assert_array_equal(total, its_total)
    assert total.dtype == its_total.dtype


@pytest.mark.parametrize("value", [2, 2.5, np.float32(1), X])
def test_one_that_comes_back_untouched_is_the_one_that_went_in(value):
    f = autojit.jit(lambda n: {"n": n, "more": n + 1}, traced="n")
    for _ in range(2):
        assert f(value)["n"] is value
    assert isinstance(
        autojit.jit(lambda n: n, traced="n", forward=False)(value), jax.Array
    )


def test_a_numpy_array_that_comes_back_is_an_array_of_jax():
    f = autojit.jit(lambda b: {"last": jnp.asarray(b)}, traced="b")
    for i in range(2):
        batch = np.full(3, i)
        last = f(batch)["last"]
        batch[:] = 99
        assert isinstance(last, jax.Array)
        assert last.dtype == jnp.asarray(batch).dtype
        np.testing.assert_array_equal(last, [i, i, i])
    assert traces(f) == 1


def test_a_bool_stays_static():
    f = autojit.jit(lambda x, flag: x if flag else -x, traced="flag")
    np.testing.assert_array_equal(f(X, True), X)
    np.testing.assert_array_equal(f(X, False), -X)
    assert traces(f) == 2


def test_numbers_and_arrays_take_the_same_place():
    f = autojit.jit(lambda s: dataclasses.replace(s, step=s.step + 1), traced="s.step")
    state = State(X)
    for i in range(5):
        state = f(state)
        assert int(state.step) == i + 1
    assert traces(f) == 1  # as with jax.jit, a Python int and a weakly typed array


def test_what_can_be_no_leaf_stays_static():
    f = autojit.jit(lambda x, batch: x, traced="batch", retrace_warning=None)
    values = [
        np.array(["a"]),
        np.array([None]),
        np.array([1], "datetime64[s]"),
        np.array([1.0], np.longdouble),
        np.str_("a"),
        "text",
        None,
        {1, 2},
        range(3),
        slice(0, 4),
        {5: "a number as a key"},
        iter([1, 2, 3]),
        (lambda: 1),
    ]
    for value in values:
        f(X, value)
        f(X, value)
    assert traces(f) == len(values)


def test_an_array_that_occurs_twice():
    batch = np.arange(3.0)
    f = autojit.jit(lambda x, a, b: x + a + 2 * b[0], traced="a")
    for shift in range(3):
        now = batch + shift
        np.testing.assert_allclose(f(X, now, [now]), X + 3 * now)
    assert traces(f) == 1
    # By itself the other is static.
    g = autojit.jit(lambda x, a, b: x + a + 2 * b[0], traced="a")
    for shift in range(3):
        np.testing.assert_allclose(
            g(X, batch, [batch + shift]), X + 3 * batch + 2 * shift
        )
        np.testing.assert_allclose(g(X, batch, [batch]), X + 3 * batch)


def test_tuples_and_sets_around_it():
    f = autojit.jit(lambda x, c: x * c[0][0] + c[0][1] + len(c[1]), traced="c[0][0]")
    for i in range(3):
        np.testing.assert_allclose(f(X, ((i, 7.0), {1, 2})), X * i + 9)
    assert traces(f) == 1
    np.testing.assert_allclose(f(X, ((5, 8.0), {1, 2})), X * 5 + 10)
    assert traces(f) == 2


def test_order_of_leaves_in_objects_with_an_order_of_their_own():
    def made(step, params):
        state = State.__new__(State)
        state.name, state.step, state.params = "adam", step, params
        return state

    f = autojit.jit(lambda s, y: s.params * 10 + s.step + 100 * y, traced="s.step")
    np.testing.assert_allclose(f(State(X, 1), X), X * 110 + 1)
    np.testing.assert_allclose(f(made(2, X), X), X * 110 + 2)
    np.testing.assert_allclose(f(made(3, X + 1), X), X * 110 + 13)
    assert traces(f) == 1


def test_what_stands_after_a_reduction():
    f = autojit.jit(lambda r, y: r.n * 10 + y, traced="r.n")
    for i in range(3):
        np.testing.assert_allclose(f(Reduced(i), X + i), X + 11 * i)
    assert traces(f) == 1


def test_a_numpy_array_that_is_not_named_is_copied():
    table = np.ones(3)
    f = autojit.jit(lambda n, table: X * n + table, traced="n")
    f(1, table)
    table[:] = 2
    np.testing.assert_allclose(f(1, table), X + 2)
    assert traces(f) == 2


def test_a_callable_object_and_methods():
    @dataclasses.dataclass
    class Model:
        w: Any
        rate: float

        def __call__(self, x):
            return self.w * x * self.rate

        @functools.partial(autojit.jit, traced="self.rate")
        def method(self, x):
            return self.w * x * self.rate

    for rate in (0.1, 0.2, 0.3):
        model = Model(X, rate)
        np.testing.assert_allclose(model.method(X), X * X * rate, rtol=1e-6)
    assert traces(Model.method) == 1
    model = Model(X, 0.1)
    for wrap, path in (
        (model, "fun.rate"),
        (model, "self.rate"),
        (model.__call__, "self.rate"),
        (model.__call__, "fun.__self__.rate"),
        (functools.partial(model, X), "self.func.rate"),
    ):
        f = autojit.jit(wrap, traced=path, share=False)
        args = () if isinstance(wrap, functools.partial) else (X,)
        for model.rate in (0.1, 0.2, 0.3):
            np.testing.assert_allclose(f(*args), X * X * model.rate, rtol=1e-6)
        assert traces(f) == 1, path
    g = autojit.jit(lambda fun, self: fun + self + X, traced=("fun", "self"))
    for i in range(3):
        g(i, i)
    assert traces(g) == 1


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("lrr", ValueError, "has no parameter lrr"),
        ("lr.", ValueError, "must be paths"),
        ("", ValueError, "must be paths"),
        ("1a", ValueError, "must be paths"),
        (["lr", 3], TypeError, "must be paths"),
        ("lr['\ud800']", UnicodeEncodeError, "surrogates"),
    ],
)
def test_what_is_no_path_is_refused(path, error, message):
    with pytest.raises(error, match=message):
        autojit.jit(use, traced=path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("state.stepp", r"'state.stepp' leads nowhere: args\[0\] has no .stepp"),
        ("config['lr']", r"leads nowhere: args\[1\] has no \['lr'\]"),
        ("state.params.a.b", r"args\[0\].params has no .a"),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_at_the_first_call(path, message):
    f = autojit.jit(use, traced=path)
    with pytest.raises(ValueError, match=message):
        f(State(X), {"scale": 1.0})
    with pytest.raises(ValueError, match=message):
        f(State(X), {"scale": 1.0})


def test_an_argument_that_is_not_passed_is_none():
    f = autojit.jit(use, traced=("lr", "batch[0]"))
    f(State(X), {"scale": 1.0})
    f(State(X), {"scale": 1.0}, [1], lr=0.1)
    f(State(X), {"scale": 1.0}, [2], lr=0.2)
    assert traces(f) == 2


def test_too_large_an_int_is_as_in_jax():
    for wrap in (jax.jit, functools.partial(autojit.jit, traced="n")):
        with pytest.raises(OverflowError):
            wrap(lambda n: n)(2**70)


def test_ahead_of_time_and_donation():
    f = autojit.jit(lambda x, n, batch: x * n + batch.sum(), traced=("n", "batch"))
    like = jax.ShapeDtypeStruct((2,), jnp.float32)
    compiled = f.lower(X, 2.0, like).compile()
    batch = np.ones(2, np.float32)
    np.testing.assert_allclose(compiled(X, 3.0, batch), X * 3 + 2)
    np.testing.assert_allclose(f(X, 4.0, batch), X * 4 + 2)
    assert traces(f) == 1
    flat = f.flat(X, 2.0, batch)
    np.testing.assert_allclose(flat.unflatten(flat.fun(X, 5.0, batch)), X * 5 + 2)
    assert f.explain(X, 7.0, batch) is None
    assert f.explain(X, 7.0, batch[:1]) == "args[2]: was float32[2], now float32[1]"
    g = autojit.jit(lambda x, n: x * n, traced="n", donate_argnums=0)
    np.testing.assert_allclose(g(X + 0, 2.0), X * 2)


def test_transformations_and_disabled():
    f = autojit.jit(lambda x, n: (x * n).sum(), traced="n")
    np.testing.assert_allclose(jax.grad(f)(X, 3.0), np.full(3, 3.0))
    np.testing.assert_allclose(jax.grad(f, argnums=1)(X, 3.0), X.sum())
    np.testing.assert_allclose(jax.vmap(f, (None, 0))(X, X), X * X.sum())
    with jax.disable_jit():
        assert f(X, 2.0) == X.sum() * 2


def test_a_dispatcher_with_paths_is_pickled(tmp_path):
    f = autojit.jit(named, traced="n")
    again = pickle.loads(
        pickle.dumps(autojit.jit(functools.partial(named), traced="n"))
    )
    for i in range(3):
        f(X, i), again(X, i)
    assert traces(f) == traces(again) == 1


def named(x, n):
    return x * n


def test_all_arguments():
    f = autojit.jit(use, traced=True, share=False)
    for i in range(3):
        config = {"scale": 1.0 + i, "flags": (True, "a"), "keys": {i - i: i}}
        args = State(X, i, "adam"), config, [np.full(2, i)]
        np.testing.assert_allclose(
            f(*args, lr=0.1 * i)[0], use(*args, lr=0.1 * i)[0], rtol=1e-6
        )
    assert traces(f) == 1
    f(State(X, 1, "sgd"), {**config, "flags": (False, "a")}, [np.full(2, 1)], lr=0.1)
    assert traces(f) == 2
    g = autojit.jit(lambda *numbers, **named: sum(numbers) + named["n"], traced=True)
    for i in range(3):
        assert g(i, 2 * i, n=i) == 4 * i
    assert traces(g) == 1
    assert traces(autojit.jit(named, traced=False, share=False)) == 0


@pytest.mark.parametrize("traced", [True, "auto", ("x", "n")])
@pytest.mark.parametrize("static", [{"static_argnums": 1}, {"static_argnames": "n"}])
def test_a_static_argument_is_not_traced(traced, static):
    def fun(x, n, by=1):
        return x * np.zeros(n["size"]).size * by

    f = autojit.jit(fun, traced=traced, **static, retrace_warning=None)
    for i in range(1, 4):
        np.testing.assert_allclose(f(X, {"size": i}), X * i)
        np.testing.assert_allclose(f(X, n={"size": i}), X * i)
    assert traces(f) == 6
    with pytest.raises(ValueError, match="is an array, in an argument that is static"):
        f(X, {"size": X}.get("size"))


def test_any_number_of_arguments_has_no_path():
    for name in ("numbers", "named"):
        with pytest.raises(ValueError, match="stands for any number of arguments"):
            autojit.jit(lambda *numbers, **named: 0, traced=name)


def test_arrays_of_a_subclass_stay_as_they_are():
    masked = np.ma.array([1.0, 2.0], mask=[True, False])
    f = autojit.jit(lambda b: (b, b + 1), traced="b")
    for _ in range(2):
        same, more = f(masked)
        assert same.mask.tolist() == more.mask.tolist() == [True, False]


# --- where they change ---


def test_what_changes_is_traced_from_the_second_value_on():
    f = autojit.jit(use, traced="auto")
    for step in range(6):
        out, state = f(State(X, step), {"scale": 2.0})
        np.testing.assert_allclose(out, X * 0.2 + step, rtol=1e-6)
        assert state.step == step
        assert type(state.step) is int
    assert traces(f) == 2
    for lr in (0.1, 0.2, 0.3):
        f(State(X, 1), {"scale": 2.0}, lr=lr)
    assert traces(f) == 4
    for scale in (1.0, 3.0, 4.0):
        f(State(X, 2), {"scale": scale}, lr=0.4)
    assert traces(f) == 5


def test_numpy_batches_and_scalars():
    f = autojit.jit(lambda x, batch, t: x + batch["a"].sum() * t, traced="auto")
    for i in range(5):
        batch = {"a": np.full(4, i, np.float32), "name": "train"}
        out = f(X, batch, np.float32(i))
        np.testing.assert_allclose(out, X + 4 * i * i)
    assert traces(f) == 2


def test_a_place_that_did_not_change_stays_static():
    f = autojit.jit(lambda x, n, k: x * n + np.zeros(k), traced="auto")
    for n in range(4):
        f(X, n, 3)
    assert traces(f) == 2  # `k` has to be a number


def needs_value(x, n):
    return x + jnp.zeros(n).sum()


def needs_truth(x, n):
    return x if n > 1 else -x


def needs_index(x, n):
    return x * [1.0, 2.0, 3.0, 4.0][n]


def needs_hash(x, n):
    return x * {0: 1.0, 1: 2.0, 2: 4.0, 3: 5.0}[n]


def needs_range(x, n):
    for _ in range(n):
        x = x + 1
    return x


def needs_text(x, n):
    return {f"{n:03d}": x}[f"{n:03d}"]


def needs_float(x, n):
    return x * float(n)


def needs_plain_text(x, n):
    return {f"layer{n}": x, str(n): x}


@pytest.mark.parametrize(
    "fun",
    [
        needs_value,
        needs_truth,
        needs_index,
        needs_hash,
        needs_range,
        needs_text,
        needs_float,
        needs_plain_text,
    ],
)
def test_a_number_whose_value_is_needed_stays_static(fun):
    f = autojit.jit(fun, traced="auto", retrace_warning=None)
    for n in (0, 1, 2, 3, 2):
        out, expected = f(X, n), fun(X, n)
        assert jax.tree.structure(out) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_allclose, out, expected)
    assert f.cache_info().currsize == 4
    assert f.explain(X, 9).endswith(
        "since the function needs its value (nearest of 4 traced)"
    )


def test_only_the_number_that_is_needed_stays_static():
    f = autojit.jit(lambda x, n, lr: x * lr + jnp.zeros(n).sum(), traced="auto")
    f(X, 1, 0.1)
    f(X, 2, 0.2)  # both have changed
    assert f.cache_info().currsize == 2
    now = traces(f)
    for lr in (0.3, 0.4, 0.5):
        np.testing.assert_allclose(f(X, 2, lr), X * lr, rtol=1e-6)
    assert traces(f) == now


def test_an_error_of_the_function_changes_nothing():
    def fun(x, n, kind):
        if kind == "bad":
            raise ZeroDivisionError
        return x * n

    f = autojit.jit(fun, traced="auto")
    f(X, 1, "good"), f(X, 2, "good")
    assert traces(f) == 2
    for n in range(3):
        with pytest.raises(ZeroDivisionError):
            f(X, n, "bad")
    now = traces(f)
    for n in range(3, 6):
        f(X, n, "good")
    assert traces(f) == now


def test_ahead_of_time_it_is_the_same():
    f = autojit.jit(needs_value, traced="auto")
    f(X, 1)
    np.testing.assert_allclose(f.lower(X, 2).compile()(X, 2), X)
    g = autojit.jit(named, traced="auto")
    g(X, 1)
    compiled = g.lower(X, 2).compile()
    np.testing.assert_allclose(compiled(X, 5), X * 5)


def test_an_int_that_jax_cannot_hold_stays_static():
    f = autojit.jit(lambda x, n: x + n % 7, traced="auto", retrace_warning=None)
    for n in (2**40, 2**41, 2**70, -(2**31) - 1):
        np.testing.assert_allclose(f(X, n), X + n % 7)
    assert f.cache_info().currsize == 4
    for n in (2**31 - 1, -(2**31), 5):
        np.testing.assert_allclose(f(X, n), X + n % 7)


def test_a_scalar_of_numpy_that_jax_cannot_hold_stays_static():
    f = autojit.jit(lambda x, n: x + int(n % 7), traced="auto", retrace_warning=None)
    g = autojit.jit(lambda x, n: x + n % 7, traced="auto", retrace_warning=None)
    for n in (5, 2**40, 2**41, -(2**40), 6):
        for each in (f, g):
            np.testing.assert_allclose(each(X, np.int64(n)), X + n % 7)
    np.testing.assert_allclose(g(X, np.uint64(2**63)), X + 2**63 % 7)


class Ordered(dict):
    pass


@pytest.mark.parametrize("kind", [collections.OrderedDict, Ordered])
def test_values_of_other_dicts(kind):
    f = autojit.jit(lambda x, d: x * d["b"] + d[1], traced="d")
    g = autojit.jit(lambda x, d: x * d["b"] + d[1], traced="d['b']")
    for i in range(3):
        d = kind({"b": i, 1: 7})
        for each in (f, g):
            np.testing.assert_allclose(each(X, d), X * i + 7)
    assert traces(f) == traces(g) == 1
    assert g.explain(X, kind({"b": 1, 1: 8})) == "args[1][1]: was 7, now 8"


def test_the_order_of_keys_does_not_hide_what_changes():
    f = autojit.jit(lambda x, d: x * d["n"], traced="auto")
    f(X, {"a": 0, "n": 1}), f(X, {"n": 2, "a": 0}), f(X, {"n": 3, "a": 0})
    assert traces(f) == 2


def test_what_is_called_outside_of_a_dispatcher_raises_as_jax_does():
    f = autojit.jit(lambda x, n: x * float(n) if x.size > 3 else x * n, traced="auto")
    f(X, 1.0), f(X, 2.0)
    flat = f.flat(X, 3.0)
    with pytest.raises(jax.errors.ConcretizationTypeError):
        flat.fun(jnp.arange(5.0), 3.0)
    np.testing.assert_allclose(f(jnp.arange(5.0), 3.0), jnp.arange(5.0) * 3)


def test_an_error_with_arguments_of_its_own():
    class Odd(Exception):
        @property
        def args(self):
            raise ZeroDivisionError

    def fun(x, n):
        raise Odd

    f = autojit.jit(lambda x, n: fun(x, n) if x.size > 3 else x * n, traced="auto")
    f(X, 1), f(X, 2)
    with pytest.raises(Odd):
        f(jnp.arange(5.0), 3)


def test_a_key_that_prints_otherwise_each_time_ends():
    class Meta(type):
        count = 0

        def __repr__(cls):
            Meta.count += 1
            return f"key {Meta.count}"

    class Key(metaclass=Meta):
        pass

    f = autojit.jit(lambda x, d: x * d[Key], traced="auto", retrace_warning=None)
    for n in range(3):
        np.testing.assert_allclose(f(X, {Key: n}), X * n)


def test_bools_and_enums_are_no_numbers():
    f = autojit.jit(lambda x, flag: x if flag else -x, traced="auto")
    for flag in (True, False, True, False):
        f(X, flag)
    assert traces(f) == 2


def test_two_kinds_of_calls_learn_apart():
    f = autojit.jit(lambda x, mode, n: x * n if mode == "a" else x + n, traced="auto")
    for n in range(5):
        np.testing.assert_allclose(f(X, "a", n), X * n)
        np.testing.assert_allclose(f(X, "b", n), X + n)
    assert traces(f) == 4


def test_nested_dispatchers():
    inner = autojit.jit(needs_value, traced="auto")
    outer = autojit.jit(lambda x, n, m: inner(x, n) * m, traced="auto")
    for n in range(1, 4):
        for m in range(1, 4):
            np.testing.assert_allclose(outer(X, n, m), X * m)
    assert outer.cache_info().currsize == 4


def test_it_is_no_option_of_a_default_dispatcher():
    f = autojit.jit(named, retrace_warning=None)
    for n in range(3):
        f(X, n)
    assert traces(f) == 3
