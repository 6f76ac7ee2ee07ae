"""Instances without state: told by `is`, or made anew for each call."""

import dataclasses
import functools
import gc
import itertools
import typing
import weakref

import equinox as eqx
import jax.numpy as jnp
import pytest
from numpy.testing import assert_array_equal

import autojit


class Unset:
    pass


class UnsetSlots:
    __slots__ = ()

    def __repr__(self):
        return "<unset>"


class UnsetSlot:
    __slots__ = ("y",)


class UnsetReduced:
    def __reduce__(self):
        return UnsetReduced, ()


class UnsetCopied:
    def __getstate__(self):
        return None

    def __bool__(self):
        return False


class Comparing:
    """Any two are equal, and it can be hashed."""

    def __eq__(self, other):
        return type(other) is Comparing

    def __hash__(self):
        return 1


KINDS = [Unset, UnsetSlots, UnsetReduced, UnsetCopied, Comparing]
SENTINELS = {kind: kind() for kind in KINDS}
RED = Unset()
BLUE = Unset()


@dataclasses.dataclass
class Config:
    rate: typing.Any = RED


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentinel_is_itself_inside(x, kind):
    sentinel = SENTINELS[kind]

    @autojit.jit
    def f(config, y, *, key=None):
        found = config.rate is sentinel and key[sentinel] == 1
        return (y if found else -y), config.rate

    for _ in range(2):
        y, result = f(Config(sentinel), x, key={sentinel: 1})
        assert_array_equal(y, x)
        assert result is sentinel
    assert f.cache_info().traces == 1


def test_the_default_of_a_dataclass(x):
    f = autojit.jit(lambda config, y: y if config.rate is RED else y * config.rate)
    assert_array_equal(f(Config(), x), x)
    assert_array_equal(f(Config(2.0), x), 2 * x)
    f = autojit.jit(lambda field: field.default is dataclasses.MISSING)
    assert f(dataclasses.fields(Config)[0]) is False


@pytest.mark.parametrize("hold", [lambda m: m, lambda m: [m], Config])
def test_two_sentinels_of_one_class(x, hold):
    def is_red(held):
        inner = held[0] if type(held) is list else held
        return (inner.rate if type(inner) is Config else inner) is RED

    f = autojit.jit(lambda held, y: y if is_red(held) else -y)
    for marker in (RED, BLUE, RED, BLUE, Unset()):
        y = f(hold(marker), x)
        assert_array_equal(y, x if marker is RED else -x)


def test_sentinels_of_a_function(x):
    red, blue = Unset(), Unset()
    f = autojit.jit(lambda m, y: y if m is red else -y)
    for marker in (blue, red, Unset(), red):
        assert_array_equal(f(marker, x), x if marker is red else -x)


def test_sentinels_in_a_container_that_others_hold(x):
    colours, others = ({"red": Unset(), "blue": Unset()} for _ in range(2))
    names = [colours]
    f = autojit.jit(lambda m, y: y if m["red"] is names[0]["red"] else -y)
    assert_array_equal(f(colours, x), x)
    assert_array_equal(f(others, x), -x)


class Relu:
    def __call__(self, x):
        return jnp.maximum(x, 0)


class Model:
    def __init__(self, w):
        self.layers = [Relu(), {"act": Relu()}]
        self.w = w

    def __call__(self, x):
        return self.layers[1]["act"](self.layers[0](x * self.w))


def test_layers_made_anew_share_a_trace(x):
    f = autojit.jit(lambda layer, y: layer(y))
    for _ in range(3):
        f(Relu(), x)
        layer = Relu()
        f(layer, x)
    assert f.cache_info().traces == 1
    g = autojit.jit(lambda model, y: model(y))
    for i in range(3):
        model = Model(x + i)
        assert_array_equal(g(model, x), (x + i) * x)
        assert_array_equal(g(model=model, y=x), (x + i) * x)
    assert g.cache_info().traces == 2  # by keyword it is another call
    h = autojit.jit(lambda pair, y: pair[0](pair[1](y)))
    for _ in range(3):
        shared = Relu()
        assert_array_equal(h([shared, shared], x), x)
    assert h.cache_info().traces == 1


def test_each_caller_gets_his_own_back(x):
    f = autojit.jit(lambda marker, y: ([marker], y + 1))
    for marker in (RED, BLUE, RED):
        assert f(marker, x)[0][0] is marker
    result = f(Unset(), x)[0][0]
    assert type(result) is Unset
    assert result is not f(Unset(), x)[0][0]


def test_two_layers_are_not_one():
    f = autojit.jit(lambda a, b: a is b)
    layer = Relu()
    for other in (layer, Relu(), layer):
        assert f(layer, other) is (other is layer)
    assert not f(Relu(), Relu())


def test_what_the_function_sets_is_not_the_callers(x):
    @autojit.jit
    def f(namespace, y):
        namespace.y = y + 1
        return namespace

    namespace = Unset()
    for i in range(2):
        result = f(namespace, x + i)
        assert result is not namespace
        assert_array_equal(result.y, x + i + 1)
        assert vars(namespace) == {}


@pytest.mark.parametrize("kind", [Unset, UnsetSlot])
def test_a_tracer_does_not_stay_with_a_sentinel(x, kind):
    sentinel = kind()
    held = [sentinel]

    @autojit.jit
    def f(marker, y):
        assert marker is held[0]
        marker.y = y + 1
        if len(y) == 2:
            raise ValueError("on purpose")
        return marker, marker.y

    assert_array_equal(f(sentinel, x)[0].y, x + 1)
    assert not hasattr(sentinel, "y")
    with pytest.raises(ValueError, match="on purpose"):
        f(sentinel, x[:2])
    assert not hasattr(sentinel, "y")


def test_nothing_else_is_taken_from_a_sentinel(x):
    defaults = {"rate": 2.0}

    @autojit.jit
    def f(marker, y):
        marker.__dict__ = defaults
        return y * marker.rate

    assert_array_equal(f(Unset(), x), 2 * x)
    marker = Unset()
    held = [marker]
    assert_array_equal(f(held[0], x), 2 * x)
    assert defaults == {"rate": 2.0}


def test_sentinels_that_others_can_reach(x):
    modes = [(x, Unset()), (x, Unset())]
    f = autojit.jit(lambda y, m: y + (1 if m is modes[0][1] else 2))
    assert [float(f(*mode)[0]) for mode in modes] == [1, 2]
    partials = [functools.partial(f, *mode) for mode in modes]
    assert [float(call()[0]) for call in partials] == [1, 2]
    assert [float(y[0]) for y in itertools.starmap(f, modes)] == [1, 2]


def test_sentinels_in_weak_dicts(x):
    first, second = Unset(), Unset()
    rates = weakref.WeakKeyDictionary({first: 2.0, second: 3.0})
    f = autojit.jit(lambda y, m: y * rates[m])
    for marker, rate in ((first, 2.0), (second, 3.0)):
        assert_array_equal(f(x, marker), rate * x)


@pytest.mark.parametrize(
    "make",
    [lambda marker: lambda: marker, lambda marker: lambda marker=marker: marker],
    ids=["closure", "default"],
)
def test_sentinels_of_functions_that_others_hold(x, make):
    getters = [make(Unset()), make(Unset())]
    f = autojit.jit(lambda get, y: y + (1 if get() is getters[0]() else 2))
    for number, get in enumerate(getters, 1):
        assert_array_equal(f(get, x), x + number)


def test_an_empty_instance_made_by_the_function_is_new_for_each_call(x):
    @autojit.jit
    def f(y):
        made = Unset()
        return [made, {"made": made}, y]

    (one, again, _), (other, _, _) = f(x), f(x)
    assert type(one) is Unset
    assert one is again["made"]
    assert one is not other
    one.tag = 1
    assert vars(other) == {}


def test_a_sentinel_that_gets_state_is_noticed(x):
    marker = Unset()
    f = autojit.jit(lambda m, y: y + getattr(m, "a", 0))
    for a in (None, 1, 2, None):
        if a is not None:
            marker.a = a
        elif "a" in vars(marker):
            del marker.a
        assert_array_equal(f(marker, x), x + (a or 0))


def test_a_sentinel_made_by_no_one_in_particular_is_not_kept(x):
    class Local:
        pass

    f = autojit.jit(lambda m, y: y)
    for _ in range(3):
        f(Local(), x)
    assert f.cache_info().currsize == 1
    gone = weakref.ref(Local)
    del Local
    f.clear_cache()
    gc.collect()
    assert gone() is None


def test_the_tag_of_equinox_counts_traces(x):
    f = autojit.jit(eqx.debug.assert_max_traces(lambda y: y + 1, max_traces=1))
    for i in range(3):
        assert_array_equal(f(x + i), x + i + 1)


# --- the order of attributes ---


@dataclasses.dataclass
class Declared:
    a: typing.Any
    b: typing.Any = 2
    c: typing.Any = 3


class Module(eqx.Module):
    a: typing.Any
    b: typing.Any
    c: typing.Any


def in_order(cls, names, values):
    made = cls.__new__(cls)
    for name in names:
        object.__setattr__(made, name, values[name])
    return made


@pytest.mark.parametrize("cls", [Declared, Module])
def test_the_order_of_declared_attributes_does_not_count(x, cls):
    seen = []

    @autojit.jit
    def f(obj):
        seen.append(list(vars(obj)))
        return obj.a * obj.b + obj.c["k"]

    for i, names in enumerate(("abc", "cba", "bca", "cba", "abc")):
        values = {"a": x + i, "b": 2, "c": {"k": 1.0 + x}}
        assert_array_equal(f(in_order(cls, names, values)), (x + i) * 2 + 1 + x)
    assert f.cache_info().traces == 1
    assert seen == [["a", "b", "c"]]


def test_a_hit_in_another_order_than_declared_hashes_nothing(x):
    class Counting:
        hashed = 0

        def __hash__(self):
            self.hashed += 1
            return 1

        def __eq__(self, other):
            return self is other

        def __reduce__(self):
            raise TypeError("not to be taken apart")

    f = autojit.jit(lambda obj, other, y: obj.a * y)
    other = Counting()
    hashed = []
    for i in range(4):
        obj = in_order(Declared, "cba", {"a": x + i, "b": 2, "c": 0})
        assert_array_equal(f(obj, other, x), (x + i) * x)
        hashed.append(other.hashed)
    assert hashed == [hashed[0]] * 4


def test_other_values_in_another_order(x):
    f = autojit.jit(lambda obj: obj.a * obj.b)
    for names, b in itertools.product(("abc", "cab"), (2, 3)):
        assert_array_equal(
            f(in_order(Declared, names, {"a": x, "b": b, "c": 0})), b * x
        )
    assert f.cache_info().traces == 2


def test_the_order_of_other_attributes_counts(x):
    values = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    f = autojit.jit(lambda obj, y: (y, list(vars(obj))))
    for cls, given, seen in (
        (Unset, "ab", "ab"),
        (Unset, "ba", "ba"),
        (Declared, "dbeac", "abcde"),
        (Declared, "ebdac", "abced"),
    ):
        assert f(in_order(cls, given, values), x)[1] == list(seen)


def test_attributes_in_another_order_within_others(x):
    f = autojit.jit(lambda objs: [obj.a["w"] * obj.c.b for obj in objs])

    def make(outer, inner, i):
        made = []
        for j in range(3):
            c = in_order(Declared, inner, {"a": 1, "b": x + j, "c": [1]})
            values = {"a": {"w": x + i + j, "n": 1}, "b": (1, 2), "c": c}
            made.append(in_order(Declared, outer, values))
        return made

    for i, orders in enumerate([("abc", "abc"), ("cba", "bca"), ("bac", "cab")]):
        for k in range(2):
            result = f(make(*orders, i + k))
            for j in range(3):
                assert_array_equal(result[j], (x + i + k + j) * (x + j))
    assert f.cache_info().traces == 1


def test_sets_of_objects_with_declared_attributes(x):
    frozen = dataclasses.make_dataclass("Frozen", ["a", "b"], frozen=True)
    one = in_order(frozen, "ab", {"a": 1, "b": 2})
    two = in_order(frozen, "ba", {"a": 1, "b": 2})
    assert autojit.flatten({one})[1] == autojit.flatten({two})[1]
