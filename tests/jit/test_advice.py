"""What a user is warned of: traces without end, and changes that are lost."""

import dataclasses
import fractions
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autojit
from autojit import _explain

X = jnp.arange(3.0)


@dataclasses.dataclass
class State:
    params: Any
    step: Any = 0
    history: list = dataclasses.field(default_factory=list)


def warned(category, run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(one.message) for one in caught if one.category is category]


def calls(f, args):
    def run():
        for each in args:
            f(*each)

    return functools.partial(warned, autojit.RetraceWarning, run)()


# --- traces without end ---


@pytest.mark.parametrize(
    ("place", "make", "values"),
    [
        ("args[1]", lambda i: i, "0, 1, 2, 3."),
        ("args[1].step", lambda i: State(X, i), "0, 1, 2, 3."),
        ("args[1]['lr']", lambda i: {"lr": i / 2, "n": 1}, "0.0, 0.5, 1.0, 1.5."),
        ("args[1]", lambda i: np.full(2, i), "numpy array([3, 3])"),
        ("args[1].history", lambda i: State(X, 0, ["a"] * i), "[], ['a'],"),
        ("args[1]['name']", lambda i: {"name": f"run {i}"}, "'run 0', 'run 1',"),
        ("args[1].__closure__['i']", lambda i: lambda: i, "0, 1, 2, 3."),
        ("args[1]", lambda i: object(), "<object object"),
    ],
)
def test_a_place_that_changes_each_time_is_named_once(place, make, values):
    f = autojit.jit(lambda x, arg: x + 1)
    (text,) = calls(f, [(X, make(i)) for i in range(8)])
    assert f"4 times, for calls that differ in {place} alone: " in text
    assert values in text
    assert "test_advice" in text  # the function
    if place == "args[1].step":
        assert 'traced="args[1].step"' in text


def test_several_places_that_change_together():
    f = autojit.jit(lambda x, a, b: x)
    (text,) = calls(f, [(X, i, np.full(2, i)) for i in range(9)])
    assert (
        "differ in args[1] and args[2] alone: args[1] was 0, 1, 2, 3; args[2]" in text
    )
    assert 'traced=("args[1]", "args[2]")' in text
    g = autojit.jit(lambda x, a: x, traced="auto")
    (text,) = calls(g, [(X, {"n": i, "log": ["a"] * i}) for i in range(9)])
    assert "args[1]['log']" in text


def test_shapes_count_too():
    f = autojit.jit(lambda x, y: x.sum() + y)
    (text,) = calls(f, [(jnp.zeros(n), X) for n in range(1, 9)])
    assert (
        "differ in args[0] alone: float32[1], float32[2], float32[3], float32[4]."
        in text
    )
    assert "pad" in text


def test_nothing_is_put_in_words_before_it_is_said(monkeypatch):
    """A trace for another shape is to take no longer than that of jax.jit."""
    written = []
    short = _explain._short
    monkeypatch.setattr(
        _explain, "_short", lambda aval: written.append(1) or short(aval)
    )
    f = autojit.jit(lambda x: x)
    assert calls(f, [(jnp.zeros(n),) for n in range(3)]) == []
    assert not written
    assert len(calls(f, [(jnp.zeros(3),)])) == 1
    written.clear()
    assert calls(f, [(jnp.zeros(n),) for n in range(4, 8)]) == []
    assert not written


def test_no_warning_without_a_reason():
    f = autojit.jit(lambda x, a, b: x)
    assert calls(f, [(X, i, 0) for i in range(3)]) == []
    assert calls(f, [(X, 0, i) for i in range(3)]) == []
    g = autojit.jit(lambda x, flag: x)
    assert calls(g, [(X, i % 2 == 0) for i in range(9)]) == []


def test_the_number_can_be_set():
    for most in (2, 3, 6):
        f = autojit.jit(lambda x, n: x, retrace_warning=most)
        assert calls(f, [(X, i) for i in range(most - 1)]) == []
        (text,) = calls(f, [(X, 100), (X, 101)])
        assert f" {most} times" in text
    f = autojit.jit(lambda x, n: x, retrace_warning=None)
    assert calls(f, [(X, i) for i in range(9)]) == []
    for wrong in (0, 1, "4", True):
        with pytest.raises(TypeError, match="retrace_warning must be"):
            autojit.jit(lambda x: x, retrace_warning=wrong)


def test_the_drop_in_is_quiet():
    f = autojit.jax_autojit(lambda x, n: x)
    assert calls(f, [(X, i) for i in range(9)]) == []

    def change(state):
        state.step += 1

    assert lost(autojit.jax_autojit(change), State(X)) == []


def test_advice_helps():
    f = autojit.jit(lambda x, state: x * state.step)
    (text,) = calls(f, [(X, State(X, i)) for i in range(8)])
    traced = text.partition('traced="')[2].partition('"')[0]
    g = autojit.jit(lambda x, state: x * state.step, traced=traced)
    assert calls(g, [(X, State(X, i)) for i in range(8)]) == []
    assert g.cache_info().traces == 1


def numbers_of(i):
    return lambda: i


@pytest.mark.parametrize(
    "make",
    [
        numbers_of,
        lambda i: lambda number=i: number,
        range,
        slice,
        lambda i: fractions.Fraction(i, 7),
        lambda i: np.array([i, "text"], dtype=object),
    ],
)
def test_no_advice_that_does_not_help(make):
    """Numbers in these stay static, whatever the option says."""
    f = autojit.jit(lambda x, arg: x)
    (text,) = calls(f, [(X, make(i)) for i in range(8)])
    seen = text.partition("alone: ")[2]
    assert seen.startswith(("0, 1, 2, 3.", "1, 2, 3, 4.", "Fraction(0, 1), Fraction("))
    assert "traced" not in seen
    assert "make it once" in text


@pytest.mark.parametrize("make", [lambda i: {i}, lambda i: {i: 1}, lambda i: 2**40 + i])
def test_no_advice_that_was_taken(make):
    f = autojit.jit(lambda x, arg: x, traced="auto")
    (text,) = calls(f, [(X, make(i)) for i in range(8)])
    assert "traced" not in text.partition("alone: ")[2]


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda i: {"a": [i]}, "args[1]['a'][0]"),
        (lambda i: functools.partial(len, i), "args[1].args[0]"),
        (lambda i: State(X, i).__eq__, "args[1].__self__.step"),
        (lambda i: np.int32(i), "args[1]"),
    ],
)
def test_advice_that_helps(make, path):
    f = autojit.jit(lambda x, arg: x)
    (text,) = calls(f, [(X, make(i)) for i in range(8)])
    assert f'traced="{path}" or traced="auto"' in text
    for traced in (path, "auto"):
        f = autojit.jit(lambda x, arg: x, traced=traced)
        assert calls(f, [(X, make(i)) for i in range(8)]) == []


def test_advice_for_what_is_called():
    class Counter:
        def __init__(self, n):
            self.n = n

        def __call__(self, x):
            return x + self.n

    counter = Counter(0)

    def count(**options):
        f = autojit.jit(counter, share=False, **options)
        for counter.n in range(8):
            f(X)

    (text,) = warned(autojit.RetraceWarning, count)
    assert 'traced="fun.n"' in text
    assert warned(autojit.RetraceWarning, lambda: count(traced="fun.n")) == []


def test_where_the_call_is():
    f = autojit.jit(lambda x, n: x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(4):
            f(X, i)
    (one,) = caught
    assert one.filename == __file__


def test_as_an_error_it_ends_the_call_and_leaves_nothing():
    f = autojit.jit(lambda x, n: x + n, retrace_warning=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f(X, 0), f(X, 1)
        with pytest.raises(autojit.RetraceWarning):
            f(X, 2)
        assert f.cache_info().currsize == 2
        np.testing.assert_array_equal(f(X, 1), X + 1)


# --- changes that are lost ---


def lost(f, *args, **kwargs):
    return warned(autojit.LostChangeWarning, lambda: f(*args, **kwargs))


class Model:
    def __init__(self):
        self.w = X
        self.mean = X
        self.count = 0
        self.buffer = np.zeros(2)
        self.log = {}
        self.inner = State(X)

    @functools.cached_property
    def cached(self):
        return self.w * 2


def set_mean(model):
    model.mean = model.mean * 0.9
    return model.w


def count(model):
    model.count += 1


def new_attribute(model):
    model.fresh = model.w + 1


def into_numpy(model):
    model.buffer[0] = 1


def into_dict(model):
    model.log["loss"] = model.w.sum()


def append(model):
    model.inner.history.append(1)


def deep(model):
    model.inner.params = model.w + 1
    return model.inner.params.sum()


def delete(model):
    del model.count


def alias(model):
    model.inner = State(model.w)


def another_container(model):
    model.log = []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (set_mean, "args[0].mean"),
        (count, "args[0].count"),
        (new_attribute, "args[0].fresh"),
        (into_numpy, "args[0].buffer"),
        (into_dict, "args[0].log"),
        (append, "args[0].inner.history"),
        (deep, "args[0].inner.params"),
        (delete, "args[0]"),
        (another_container, "args[0].log"),
    ],
)
def test_what_is_changed_and_not_returned_is_named(change, path):
    f = autojit.jit(change)
    (text,) = lost(f, Model())
    assert text.startswith(f"{__name__}.{change.__name__} has changed {path} in place")
    assert lost(f, Model()) == []  # a hit
    assert lost(autojit.jit(change, lost_change_warning=False), Model()) == []


def copy_returned(model):
    model.inner.step += 1
    return dataclasses.replace(model.inner)


def tuple_returned(model):
    model.log = (model.w + 1, model.w + 2)
    return model.log


def in_another_order(model):
    w = vars(model).pop("w")
    model.w = w
    return w + 1


def iterator_returned(model):
    model.log = iter([model.w, 1])
    return model.log


class Spent:
    pass


SPENT = Spent()


def marked(model):
    model.log = SPENT
    return model.w


def untouched(model):
    return model.w + 1


def returned(model):
    model.count += 1
    model.mean = model.w
    return model


def returned_inside(model):
    model.inner.step += 1
    model.inner.history.append(2)
    return {"state": [model.inner]}


def returned_value(model):
    model.mean = model.w * 2
    return model.mean


def only_reads(model):
    return model.cached + 1


def changed_back(model):
    model.count += 1
    model.count -= 1
    return model.w


def its_own(model):
    mine = State(model.w)
    mine.step += 1
    return mine.params


def replaced_by_an_equal(model):
    model.log = {}
    model.inner = State(model.inner.params)


@pytest.mark.parametrize(
    "use",
    [
        untouched,
        iterator_returned,
        marked,
        copy_returned,
        tuple_returned,
        in_another_order,
        returned,
        returned_inside,
        returned_value,
        only_reads,
        changed_back,
        its_own,
        replaced_by_an_equal,
    ],
)
def test_nothing_is_said_where_nothing_is_lost(use):
    assert lost(autojit.jit(use), Model()) == []


def changed_in_another_order(model):
    w = vars(model).pop("w")
    model.w = w
    model.count += 1
    return w


def random_numbers(model, generator):
    return model.w + generator.random()


def test_paths_that_a_reader_can_use():
    (text,) = lost(autojit.jit(changed_in_another_order), Model())
    assert "has changed args[0].count in place" in text
    (text,) = lost(autojit.jit(random_numbers), Model(), np.random.default_rng(0))
    assert "has changed args[1] in place" in text


def test_many_changes_are_not_all_named():
    def change(numbers):
        for key in numbers:
            numbers[key] += 1

    (text,) = lost(autojit.jit(change), dict.fromkeys(range(2000), 1))
    assert "args[0][0], args[0][1], args[0][2], args[0][3], args[0][4] and more" in text


def test_of_several_arguments():
    def step(model, *, state, items):
        model.count += 1
        state.step += 1
        items[0].params = model.w
        return state

    model = Model()
    (text,) = lost(autojit.jit(step), model, items=[State(X + 1)], state=State(X))
    assert "changed args[0].count, kwargs['items'][0].params in place" in text


def test_of_a_bound_method_and_a_callable():
    class Counter:
        def __init__(self):
            self.calls = 0
            self.w = X

        def __call__(self, x):
            self.calls += 1
            return self.w * x

        method = __call__

    counter = Counter()
    (text,) = lost(autojit.jit(counter), X)
    assert "has changed fun.calls in place" in text
    (text,) = lost(autojit.jit(counter.method), X)
    assert "calls in place" in text
    assert counter.calls == 0


def test_what_belongs_to_the_caller_is_not_lost():
    class Bare:
        pass

    log = []
    bare = Bare()

    def record(x, sentinel, function):
        log.append(1)
        sentinel.count = 1
        function.count = 1
        return x

    assert lost(autojit.jit(record), X, bare, lambda: 1) == []


def test_a_copy_of_another_kind_has_not_changed():
    assert lost(autojit.jit(lambda it: X), iter({"a": X}.items())) == []


def test_an_iterator_that_is_returned():
    assert lost(autojit.jit(lambda it: it), iter([X, 2])) == []


def test_an_iterator_that_is_used_up():
    (text,) = lost(autojit.jit(lambda x, it: x + next(it)), X, iter([1, 2]))
    assert "changed args[1]" in text


def test_an_object_that_cannot_be_looked_at_is_no_error():
    class Once:
        broken = False

        def __init__(self, w):
            self.w = w

        def __reduce__(self):
            if isinstance(self.w, jax.core.Tracer):
                raise KeyError
            return Once, (self.w,)

    f = autojit.jit(lambda obj: obj.w + 1)
    assert lost(f, Once(X)) == []


def test_shapes_and_sharing():
    def share(pair):
        pair[0].step = 1
        return pair[1]

    state = State(X)
    assert lost(autojit.jit(share), [state, state]) == []
    (text,) = lost(autojit.jit(share), [state, State(X)])
    assert "args[0][0].step" in text


# --- what there is ---


def test_specializations():
    f = autojit.jit(lambda x, n: x + n, share=False)
    assert f.specializations() == []
    for n in (1, 2):
        for _ in range(3):
            f(X, n)
    f(X[:2], 2)
    one, other = f.specializations()
    assert str(one.skeleton) == "Skeleton((*, 2))"
    assert (one.hits, one.traces) == (3, 2)
    assert (other.hits, other.traces) == (2, 1)
    assert one.trace_seconds > 0
    assert one.compile_seconds > 0
    assert one.bytes > 0
    info = f.cache_info()
    assert info.hits == one.hits + other.hits == 5
    assert info.currbytes == one.bytes + other.bytes
    f.clear_cache()
    assert f.specializations() == []
    assert f.cache_info().hits == 0


def test_hits_of_what_has_gone_count():
    f = autojit.jit(lambda x, n: x + n, maxsize=1, share=False)
    for n in (1, 2, 3):
        f(X, n), f(X, n)
    assert f.cache_info().hits == 3
    assert [one.hits for one in f.specializations()] == [1]
