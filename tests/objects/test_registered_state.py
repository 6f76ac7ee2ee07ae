"""Classes that say where they keep their state, and those of which it is known."""

import collections
import copyreg
import dataclasses
import datetime
import decimal
import fractions
import gc
import pathlib
import re
import tracemalloc
import uuid

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import autojit
from autojit import _state


@pytest.fixture(autouse=True)
def _registered():
    before = dict(_state.registered)
    yield
    _state.registered.clear()
    _state.registered.update(before)
    autojit._core.forget_plans()


class Counted:
    """An instance whose methods count how often they are called."""

    called = 0

    def __init__(self, weights, name="a"):
        self.weights, self.name = weights, name

    def __getstate__(self):
        Counted.called += 1
        return dict(vars(self))

    def __setstate__(self, state):
        Counted.called += 1
        vars(self).update(state)


class Slots:
    __slots__ = ("_cache", "name", "weights")

    def __init__(self):
        self.name, self.weights, self._cache = "default", None, []

    def __reduce__(self):
        raise AssertionError("not to be asked")


def scaled(layer, x):
    layer.weights = layer.weights * x
    return layer


def test_no_method_is_called(x):
    autojit.register_state(Counted)
    f = autojit.jit(scaled)
    for name in ("a", "b", "a"):
        f(Counted(x, name), x)
    Counted.called = 0
    layer = f(Counted(x), x)
    assert Counted.called == 0
    assert vars(layer).keys() == {"weights", "name"}
    np.testing.assert_array_equal(layer.weights, x * x)
    assert f.cache_info().traces == 2


def test_it_counts_from_then_on(x):
    f = autojit.jit(scaled)
    f(Counted(x), x)
    Counted.called = 0
    f(Counted(x), x)
    assert Counted.called > 0
    autojit.register_state(Counted)
    f(Counted(x), x)
    Counted.called = 0
    f(Counted(x), x)
    assert Counted.called == 0


def test_it_counts_though_the_class_has_not_changed(x):
    called = []

    class Layer:
        def __getstate__(self):
            called.append(self)
            return vars(self)

    f = autojit.jit(lambda layer, x: layer.weights * x)
    one = Layer()
    one.weights = x
    f(one, x)
    autojit.register_state(Layer)
    f(one, x)
    before = len(called)
    f(one, x)
    assert len(called) == before


def test_named_attributes_alone_tell_instances_apart(x):
    autojit.register_state(Slots, ["weights", "name"], make=Slots)
    f = autojit.jit(lambda layer, x: (layer, layer.weights * x, len(layer._cache)))
    one = Slots()
    one.weights = x
    for cache in ([], [1], None):
        one._cache = cache
        layer, product, size = f(one, x)
        np.testing.assert_array_equal(product, x * x)
        assert (layer.name, layer._cache, size) == ("default", [], 0)
    assert f.cache_info().traces == 1
    one.name = "other"
    assert f(one, x)[0].name == "other"
    del one.name
    assert f(one, x)[0].name == "default"  # as `make` leaves it
    assert f.cache_info().traces == 3


def test_named_attributes_of_a_dict(x):
    autojit.register_state(Counted, ["weights"])
    f = autojit.jit(lambda layer, x: layer)
    one = Counted(x)
    one.extra = object()
    two = Counted(x, "b")
    for layer in (one, two, one):
        assert vars(f(layer, x)).keys() == {"weights"}
    assert f.cache_info().traces == 1


def test_paths_and_repr_name_the_attributes(x):
    autojit.register_state(Slots, ["name", "weights"], make=Slots)
    one = Slots()
    one.weights = [x]
    skeleton = autojit.flatten(one)[1]
    assert "Slots(name='default', weights=[*])" in repr(skeleton)
    f = autojit.jit(lambda layer: layer.weights[0])
    f(one)
    one.name = "b"
    assert f.explain(one) == "args[0].name: was 'default', now 'b'"


def test_subclasses(x):
    autojit.register_state(Counted)

    class Plain(Counted):
        pass

    class Own(Counted):
        def __getstate__(self):
            Counted.called += 1
            return {"weights": self.weights}

    for cls, calls in ((Plain, 0), (Own, 1)):
        f = autojit.jit(scaled)
        f(cls(x), x)
        Counted.called = 0
        f(cls(x), x)
        assert min(Counted.called, 1) == calls


def test_what_is_said_of_some_attributes_does_not_hold_for_subclasses(x):
    autojit.register_state(Counted, ["weights"])

    class More(Counted):
        pass

    f = autojit.jit(lambda layer: layer.weights)
    for name in ("a", "b"):
        f(More(x, name))
    assert f.cache_info().traces == 2


def test_a_method_that_is_replaced(x, monkeypatch):
    autojit.register_state(Counted)
    f = autojit.jit(lambda layer: layer.weights)
    one = Counted(x)
    f(one)
    monkeypatch.setattr(Counted, "__getstate__", lambda self: {"weights": self.weights})
    for one.name in "bc":
        f(one)
    assert f.cache_info().traces == 2  # the name no longer counts


def test_with_no_attributes_an_instance_says_nothing(x):
    class Token:
        made = 0

        def __init__(self):
            Token.made += 1
            self.number = Token.made

    autojit.register_state(Token, (), make=Token)
    seen = []

    def f(x, a, b):
        seen.append((a, b))
        return x, {"token": a, "again": (b, 1)}

    jitted = autojit.jit(f)
    one = Token()
    for a, b in ((one, one), (Token(), Token()), (one, Token())):
        result = jitted(x, a, b)[1]
        assert type(result["token"]) is Token
        assert result["token"] is result["again"][0]
        assert result["token"] not in (a, b, *seen[0])
    assert len(seen) == 1
    assert seen[0][0] is seen[0][1]


def test_what_make_makes_has_to_be_of_the_class(x):
    autojit.register_state(Slots, ["name"], make=dict)
    f = autojit.jit(lambda layer, x: x)
    with pytest.raises(TypeError, match=r"args\[0\].*Slots.*made one of dict"):
        f(Slots(), x)


@pytest.mark.parametrize(
    "cls", [3, dict, collections.OrderedDict, type("Of", (list,), {}), Exception]
)
def test_classes_of_which_it_cannot_be_said(cls):
    with pytest.raises(TypeError, match="register_state needs a class"):
        autojit.register_state(cls)


def test_a_registration_goes_before_copyreg(x):
    autojit.register_state(Slots, ["name"], make=Slots)
    f = autojit.jit(lambda layer, x: x)
    f(Slots(), x)
    copyreg.pickle(Slots, lambda one: pytest.fail("not to be asked"))
    try:
        f(Slots(), x)
    finally:
        copyreg.dispatch_table.pop(Slots)


def test_sharing_and_cycles_hold(x):
    autojit.register_state(Counted)
    one = Counted(x)
    one.me = [one, one]
    f = autojit.jit(lambda layer: layer)
    two = f(one)
    assert two.me[0] is two
    assert two.me[1] is two
    one.me[1] = Counted(x)
    assert f(one).me[1] is not two
    assert f.cache_info().traces == 2


# Libraries.


def reduced_classes(obj):
    """Tell what of an object is taken apart by its own methods."""
    text = repr(autojit.flatten(obj)[1])
    return set(re.findall(r"<(\w+): <", text))


def test_flax_is_taken_apart_natively():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Linear(2, 2, rngs=rngs), nnx.BatchNorm(2, rngs=rngs), nnx.Dropout(0.5)
    )
    assert reduced_classes((model, rngs, nnx.split(model))) <= {"PyTreeDef"}


def test_a_trace_state_is_of_the_trace_it_is_in(x):
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

    def step(model, x):
        model.kernel[...] = model.kernel[...] + 1  # an error in another trace
        model.count = model.count + 1 if hasattr(model, "count") else 1
        return model, model(x)

    f = autojit.jit(step)
    one, _ = f(model, x)
    two, _ = f(one, x)
    two.kernel[...] = two.kernel[...] * 2  # and outside again
    assert two.count == 2
    assert two.kernel._trace_state.is_valid()
    np.testing.assert_allclose(two.kernel[...], (model.kernel[...] + 2) * 2, 1e-6)
    assert jax.jit(lambda x: f(model, x)[1])(x).shape == (3,)


def test_shared_variables_stay_shared(x):
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    model.tied = model.kernel

    def step(model, x):
        model.kernel[...] = model.kernel[...] + 1
        return model

    assert autojit.jit(step)(model, x).tied[...].sum() == (model.tied[...] + 1).sum()


def test_another_version_of_a_library_is_taken_apart_by_its_methods(x, monkeypatch):
    """One in which a variable has more, or less, than its attributes."""

    class Mine(nnx.Param):
        pass

    original = nnx.Variable.__getstate__

    def getstate(self):
        return {**original(self), "more": 1}

    getstate.__module__ = original.__module__
    getstate.__qualname__ = original.__qualname__
    monkeypatch.setattr(nnx.Variable, "__getstate__", getstate)
    assert reduced_classes(Mine(x)) == {"Mine"}


def test_hostile_names_of_classes(x):
    class Meta(type):
        def __getattribute__(cls, name):
            raise RuntimeError(name)

    class Unhashable(type):
        __hash__ = None

    class Hostile(metaclass=Meta):
        def __reduce__(self):
            return tuple, ()

    class Other(metaclass=Unhashable):
        pass

    f = autojit.jit(lambda x, one: x)
    f(x, Hostile())
    autojit.register_state(Counted)
    f(x, Hostile())
    f(x, Other())


# Constants.

CONSTANTS = {
    "date": lambda i: datetime.date(2000, 1, 1 + i),
    "datetime": lambda i: datetime.datetime(2000, 1, 1 + i),
    "fold": lambda i: datetime.datetime(2000, 1, 1, fold=i),
    "aware": lambda i: datetime.datetime(
        2000, 1, 1, i, tzinfo=datetime.timezone(datetime.timedelta(hours=i))
    ),
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "timezone": lambda i: datetime.timezone(datetime.timedelta(0), f"zone {i}"),
    "Decimal": lambda i: decimal.Decimal("1.50" if i else "1.5"),
    "Fraction": lambda i: fractions.Fraction(i, 7),
    "UUID": lambda i: uuid.UUID(int=i),
    "Path": lambda i: pathlib.Path(f"{i}"),
    "PartitionSpec": lambda i: jax.sharding.PartitionSpec("ab"[i]),
    "PurePath": lambda i: (pathlib.PurePosixPath, pathlib.PureWindowsPath)[i]("a"),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_constants(x, kind):
    make = CONSTANTS[kind]
    seen = []

    def f(x, config):
        seen.append(config["it"])
        return x, config["it"]

    jitted = autojit.jit(f)
    one = make(0)
    for it in (one, make(1), one, make(0), make(1), one):
        config = {"it": it, "in a tuple": (it, 1)}
        result = jitted(x, config)[1]
        assert (type(result), repr(result)) == (type(it), repr(it))
    assert seen[0] is one
    assert len(seen) == 2
    assert repr(make(1))[:40] in jitted.explain(x, {"it": make(1), "in a tuple": ()})


def test_a_datetime_of_a_zone_that_can_change(x):
    class Zone(datetime.tzinfo):
        hours = 1

        def utcoffset(self, at):
            return datetime.timedelta(hours=self.hours)

    zone = Zone()
    moment = datetime.datetime(2000, 1, 1, tzinfo=zone)
    f = autojit.jit(lambda x, moment: x * moment.utcoffset().seconds)
    for zone.hours in (1, 2, 1):
        np.testing.assert_array_equal(f(x, moment), x * zone.hours * 3600)


def test_subclasses_of_constants_may_change(x):
    class Money(decimal.Decimal):
        pass

    money = Money("1.5")
    f = autojit.jit(lambda x, money: x if money.currency == "EUR" else -x)
    for money.currency, sign in (("EUR", 1), ("USD", -1)):
        np.testing.assert_array_equal(f(x, money), sign * x)


def test_constants_are_not_kept_beyond_their_specialization(x):
    f = autojit.jit(lambda x, it: x)
    count = len([o for o in gc.get_objects() if type(o) is fractions.Fraction])
    f(x, fractions.Fraction(1, 3))
    f.clear_cache()
    gc.collect()
    assert (
        len([o for o in gc.get_objects() if type(o) is fractions.Fraction]) <= count + 1
    )


@dataclasses.dataclass
class Config:
    root: pathlib.Path
    rate: decimal.Decimal


def test_numbers_in_constants_are_not_traced(x):
    f = autojit.jit(lambda x, c: x * float(c.rate), traced=True)
    for rate in "12":
        config = Config(pathlib.Path("a"), decimal.Decimal(rate))
        np.testing.assert_array_equal(f(x, config), x * float(rate))
    assert f.cache_info().traces == 2


def test_jnp_of_a_registered_class_under_transformations(x):
    autojit.register_state(Counted)
    loss = autojit.jit(lambda layer, x: jnp.sum(layer.weights * x))
    grad = jax.grad(lambda w: loss(Counted(w), x))(x)
    np.testing.assert_array_equal(grad, x)


# Namedtuples that can have attributes.


class Transformation(collections.namedtuple("Transformation", "init update")):
    """As Optax's are: a subclass without ``__slots__``."""


def test_a_namedtuple_with_a_dict(x):
    f = autojit.jit(lambda x, t: (t, x * t.init), retrace_warning=None)
    for _ in range(3):
        result, product = f(x, Transformation(2, 3))
        assert type(result) is Transformation
        assert result == (2, 3)
        assert vars(result) == {}
        np.testing.assert_array_equal(product, x * 2)
    assert f.cache_info().traces == 1
    text = repr(autojit.flatten(Transformation(2, 3))[1])
    assert "Transformation(2, 3)" in text


def test_attributes_of_a_namedtuple_count(x):
    f = autojit.jit(
        lambda x, t: x * getattr(t, "rate", 0) + t.init, retrace_warning=None
    )
    one = Transformation(1, 3)
    for rate in (None, None, 1, 1, 2, 1, None):
        vars(one).clear()
        if rate is not None:
            one.rate = rate
        np.testing.assert_array_equal(f(x, one), x * (rate or 0) + 1)
    assert f.cache_info().traces == 3
    one.rate = x
    result = autojit.jit(lambda t: t)(one)
    np.testing.assert_array_equal(result.rate, x)


def test_a_namedtuple_with_a_dict_has_an_identity(x):
    def f(x, pair):
        pair[0].mark = 1
        return x * hasattr(pair[1], "mark")

    jitted = autojit.jit(f)
    one, two = Transformation(1, 2), Transformation(1, 2)
    for pair in ([one, one], [one, two], [one, one], [one, two]):
        np.testing.assert_array_equal(jitted(x, pair), x * (pair[0] is pair[1]))
    assert jitted.cache_info().traces == 2


def test_a_frozen_dict_is_read_where_it_lies(x):
    from flax.core import FrozenDict

    tree = FrozenDict({"a": {"b": x}, "n": 2})
    f = autojit.jit(lambda t: (t, t["a"]["b"] * t["n"]))
    for _ in range(2):
        hash(FrozenDict({"n": 2}))
        result, product = f(tree)
        np.testing.assert_array_equal(product, x * 2)
        assert type(result) is FrozenDict
        assert hash(result.copy({"a": 1})) == hash(tree.copy({"a": 1}))
    assert f.cache_info().traces == 1
    f(FrozenDict({"a": {"b": x}, "n": 3}))
    assert f.cache_info().traces == 2
    assert reduced_classes(tree) == set()


# Names that are wrong.


@pytest.mark.parametrize("names", ["weights", b"weights", [3], ["weights", None]])
def test_what_is_no_name(names):
    with pytest.raises(TypeError, match="needs names of attributes"):
        autojit.register_state(Counted, names)


@pytest.mark.parametrize("cls", [Counted, Slots])
def test_a_name_that_no_attribute_has(x, cls):
    autojit.register_state(cls, ["weight"])
    f = autojit.jit(lambda layer, x: layer.weights * x)
    one = cls(x) if cls is Counted else cls()
    one.weights = x
    for _ in range(2):
        with pytest.raises(TypeError, match=f"'weight' is a part of .* {cls.__name__}"):
            f(one, x)


def test_an_attribute_that_is_not_there_yet(x):
    class Layer:
        scale = 1.0

    autojit.register_state(Layer, ["weights", "scale", "weights"])
    f = autojit.jit(lambda layer, x: layer.scale * x + getattr(layer, "weights", 0))
    one = Layer()
    with pytest.raises(TypeError, match="'weights'"):
        f(one, x)
    one.weights = x
    np.testing.assert_array_equal(f(one, x), x + x)
    one.scale = 3.0
    np.testing.assert_array_equal(f(one, x), 3 * x + x)
    del one.weights, one.scale
    np.testing.assert_array_equal(f(one, x), x)
    one.weights = x * 5
    np.testing.assert_array_equal(f(one, x), x + x * 5)
    assert f.cache_info().traces == 3


def test_an_instance_without_its_attributes_is_no_sentinel(x):
    class Layer:
        pass

    autojit.register_state(Layer, ["weights"])
    f = autojit.jit(lambda layer, x: (layer, x))
    one = Layer()
    one.weights = x
    f(one, x)
    for other in [Layer() for _ in range(3)]:  # which somebody else holds too
        assert f(other, x)[0] is not other
    assert f.cache_info().traces == 2


@pytest.mark.parametrize("kind", CONSTANTS)
def test_constants_that_are_made_anew_are_not_taken_apart(x, kind):
    """A numpy array beside them would be copied for that."""
    large = np.zeros(100_000)
    f = autojit.jit(lambda x, config: x)
    f(x, [CONSTANTS[kind](1), large])
    tracemalloc.start()
    f(x, [CONSTANTS[kind](1), large])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < large.nbytes / 2
    assert f.cache_info().traces == 1


class Key:
    """Equal to a string, and does something when it is asked."""

    then = None

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        if Key.then is not None:
            Key.then()
        return other == self.name


def test_keys_of_an_instance_are_not_asked(x):
    autojit.register_state(Counted, ["weights"])
    counted = Counted(1.0)
    vars(counted).clear()
    vars(counted)[Key("weights")] = 1.0
    values = [counted, *([float(i)] for i in range(50))]
    f = autojit.jit(lambda x, values: x * len(values))
    f(x, values)
    asked = []
    Key.then = lambda: (asked.append(1), values.clear())
    try:
        for _ in range(2):
            f(x, values)
    finally:
        Key.then = None
    assert len(values) == 51
    assert not asked
