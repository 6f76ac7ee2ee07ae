"""Classes that change between calls: what says how to take an instance apart counts."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

import autojit
from autojit import _state


def ordinary():
    class Model:
        count = 0

        def __init__(self, rate, extra=0):
            self.rate, self.extra = rate, extra

    return Model


def with_slots():
    class Model:
        __slots__ = ("extra", "rate")

        def __init__(self, rate, extra=0):
            self.rate, self.extra = rate, extra

    return Model


def declared():
    @dataclasses.dataclass
    class Model:
        rate: float
        extra: int = 0

    return Model


def derived():
    class Model(ordinary()):
        pass

    return Model


MAKE = [ordinary, with_slots, declared, derived]


def rate_alone(model):
    return {"rate": model.rate} if hasattr(model, "__dict__") else (None, {"rate": 1})


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("calls", [1, 3])
def test_a_getstate(x, make, calls):
    cls = make()
    f = autojit.jit(lambda x, model: x * model.rate)
    for _ in range(calls):
        f(x, cls(1))
    base = cls.__mro__[-2]
    base.__getstate__ = rate_alone
    for extra in range(4):
        np.testing.assert_array_equal(f(x, cls(1, extra)), x)
    assert f.cache_info().traces == 2  # the extra attribute no longer counts
    del base.__getstate__
    f(x, cls(1, 5))
    assert f.cache_info().traces == 3


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("name", ["__reduce__", "__reduce_ex__"])
def test_a_reduction(x, make, calls, name):
    cls = make()
    f = autojit.jit(lambda x, model: x * model.rate)
    for _ in range(calls):
        f(x, cls(1))
    asked = []

    def reduction(model, *protocol):
        asked.append(model)
        return type(model), (model.rate, model.extra)

    setattr(cls.__mro__[-2], name, reduction)
    f(x, cls(1))
    assert asked


@pytest.mark.parametrize("make", MAKE)
def test_a_finalizer(x, make):
    cls = make()
    model = cls(1)
    seen = []

    def g(x, model):
        seen.append(model)
        return x

    f = autojit.jit(g)
    for _ in range(3):
        f(x, model)
    cls.__del__ = lambda self: None
    f(x, model)
    assert seen[-1] is model  # what owns a resource is not copied
    assert len(seen) == 2


def test_an_attribute_lookup_of_its_own(x):
    cls = ordinary()
    f = autojit.jit(lambda x, model: x * model.rate, retrace_warning=None)
    for _ in range(3):
        f(x, cls(1))
    cls.__getattribute__ = lambda self, name: (
        7 if name == "rate" else object.__getattribute__(self, name)
    )
    np.testing.assert_array_equal(f(x, cls(2)), x * 7)


def test_other_bases(x):
    class Base:
        pass

    class Other:
        def __getstate__(self):
            return {"rate": self.rate}

    class Model(Base):
        def __init__(self, rate, extra=0):
            self.rate, self.extra = rate, extra

    f = autojit.jit(lambda x, model: x * model.rate)
    for _ in range(3):
        f(x, Model(1))
    Model.__bases__ = (Other,)
    for extra in range(3):
        f(x, Model(1, extra))
    assert f.cache_info().traces == 2


def test_fields_that_are_declared_later(x):
    cls = ordinary()
    one, two = cls(1), cls(1)
    two.__dict__ = {"extra": 0, "rate": 1}  # in another order
    f = autojit.jit(lambda x, model: x * model.rate)
    for model in (one, two, one):
        f(x, model)
    assert f.cache_info().traces == 2
    cls.__annotations__ = {"rate": float, "extra": int}
    dataclasses.dataclass(cls)
    one.rate = two.rate = 2
    for model in (one, two, one):
        f(x, model)
    assert f.cache_info().traces == 3  # the order no longer counts


def test_fields_that_are_declared_no_longer(x):
    cls = declared()
    one, two = cls(1), cls(1)
    for model, names in ((one, "ab"), (two, "ba")):
        for name in names:
            setattr(model, name, 0)
    both = {**cls.__dataclass_fields__, "a": None, "b": None}
    f = autojit.jit(lambda x, model: x * model.rate)
    for fields, traces in ((both, 1), (dict(list(both.items())[:3]), 1)):
        cls.__dataclass_fields__ = fields
        for model in (one, two, one):
            f(x, model)
        assert f.cache_info().traces == traces
    cls.__dataclass_fields__ = dict(list(both.items())[:2])
    one.rate = two.rate = 2
    for model in (one, two, one):
        f(x, model)
    assert f.cache_info().traces == 3


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("times", [5, 2_500])  # CPython soon has no more versions
def test_other_attributes_do_not_count(x, make, times):
    cls = make()
    large = np.zeros(100_000)
    f = autojit.jit(lambda x, model: x)
    model = cls(1, large)
    f(x, model)
    for cls.count in range(times):
        hash(cls)  # an attribute is looked up
    tracemalloc.start()
    for cls.count in range(5):
        f(x, model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < large.nbytes / 2  # it was matched, and not taken apart
    assert f.cache_info().traces == 1


def test_slots_that_a_class_hides(x):
    cls = with_slots()
    f = autojit.jit(lambda x, model: x * model.rate, retrace_warning=None)
    model = cls(2)
    for _ in range(3):
        f(x, model)
    cls.rate = 5  # what the slot holds is not found any more
    with pytest.raises(TypeError, match="cannot be put together again"):
        f(x, model)


def test_registered_after_the_class_was_another(x):
    class Model:
        def __init__(self, rate):
            self.rate, self.calls = rate, 0

    def make():
        model = Model(1)
        model.calls = 5
        return model

    f = autojit.jit(lambda x, model: x + model.calls, retrace_warning=None)
    g = autojit.jit(lambda model: model.rate)
    f(x, Model(2))
    Model.__reduce__ = lambda self: (Model, (self.rate,))
    g(Model(2))
    del Model.__reduce__
    try:
        autojit.register_state(Model, ["rate"], make=make)
        g(Model(2))
        np.testing.assert_array_equal(f(x, Model(2)), x + 5)
    finally:
        del _state.registered[Model]
