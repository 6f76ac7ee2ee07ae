"""Why a function is traced again: in the log, on request, and as an error."""

import asyncio
import collections
import dataclasses
import enum
import functools
import logging
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autojit
from autojit import _explain

X = jnp.arange(3.0)


class Mode(enum.Enum):
    TRAIN = 1
    TEST = 2


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    act: str = "tanh"
    sizes: list = dataclasses.field(default_factory=lambda: [8, 8])
    extra: object = None


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b


class Reduced:
    def __init__(self, a):
        self.a = a

    def __reduce__(self):
        return Reduced, (self.a,)


Point = collections.namedtuple("Point", ["x", "y"])
SHARED = [1]


def make(value, default=1):
    def inner(x, n=default):
        return x + value + n

    return inner


def model(**changes):
    """Return some arguments as they occur, with changes."""
    return types.SimpleNamespace(
        **{"config": Config(), "layers": [{"w": X, "n": i} for i in range(3)]} | changes
    )


CHANGES = {
    "a number": (1.0, 2.0, "args[0]: was 1.0, now 2.0"),
    "its type": (1, True, "args[0]: was 1, now True"),
    "an attribute": (Config(), Config(lr=0.2), "args[0].lr: was 0.1, now 0.2"),
    "deep inside": (
        model(),
        model(config=Config(sizes=[8, 16])),
        "args[0].config.sizes[1]: was 8, now 16",
    ),
    "a class": (Slots(1, 2), Config(), "args[0]: was Slots(a=1, b=2), now Config("),
    "a slot": (Slots(1, X), Slots(2, X), "args[0].a: was 1, now 2"),
    "a key": ({"a": 1}, {"a": 1, "b": X}, "args[0]: has now 'b'"),
    "a key that went": ({"a": 1, "b": X}, {"a": 1}, "args[0]: has no longer 'b'"),
    "order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "args[0]: has its keys in another"),
    "length": ([1, 2], [1, 2, 3], "args[0]: had 2 items, has now 3"),
    "sharing": (
        [SHARED, SHARED],
        [[1], [1]],
        "args[0][0]: is no longer the same object as args[0][1]",
    ),
    "an enum": (Mode.TRAIN, Mode.TEST, "args[0]: was <Mode.TRAIN: 1>, now <Mode.TEST"),
    "a field": (Point(1, X), Point(2, X), "args[0].x: was 1, now 2"),
    "a closure": (make(1), make(2), "args[0].__closure__['value']: was 1, now 2"),
    "a default": (make(1, 1), make(1, 2), "args[0].__defaults__[0]: was 1, now 2"),
    "no longer apart": (
        [[1], [1]],
        [SHARED, SHARED],
        "is now the same object as args[0][1",
    ),
    "a key of its own": ({(1,): 1}, {(2,): 1}, "args[0].keys()[0][0]: was 1, now 2"),
    "one more of these": ({(1,): 1}, {(1,): 1, (2,): 1}, "had 1 keys, has now 2"),
    "an element": ({1, 2}, {1, 3}, "args[0]: has now 3"),
    "a set that grew": (
        frozenset([1]),
        frozenset([1, 2]),
        "args[0]: was frozenset({1}), now f",
    ),
    "code": (make, model, "args[0]: was the function make ("),
    "numpy and JAX": (
        {"x": np.ones(2)},
        {"x": X},
        "was a numpy array([1., 1.]), now a jax.",
    ),
    "long text": ("a" * 150 + "b" * 90, "a" * 150 + "c" * 90, "was ... aaaa"),
    "a partial": (
        functools.partial(make, 1),
        functools.partial(make, 2),
        "args[0].args[0]: was 1, now 2",
    ),
    "a method": (
        Config(lr=1).__eq__,
        Config(lr=2).__eq__,
        "args[0].__self__.lr: was 1",
    ),
    "a reduction": (
        Reduced(1),
        Reduced(2),
        "args[0].__reduce_ex__()[1][0]: was 1, now",
    ),
    "numpy": (
        np.arange(3),
        np.arange(1, 4),
        "args[0]: was a numpy array([0, 1, 2]), now a numpy array",
    ),
    "what reads the same": (
        np.zeros(2_000),
        np.eye(1, 2_000, 1_000)[0],
        "), now another",
    ),
    "None": (None, X, "args[0]: was None, now a jax.Array"),
    "a shape": (
        model(),
        model(layers=[{"w": jnp.ones(4), "n": 0}]),
        "args[0].layers: ",
    ),
    "a leaf's shape": (X, X[:2], "args[0]: was float32[3], now float32[2]"),
    "its dtype": ({"x": X}, {"x": X.astype(int)}, "args[0]['x']: was float32[3], now "),
    "its weak type": (jnp.asarray(1.0), 1 * jnp.float32(1), "float32[] (weakly typed)"),
    "several shapes": ([X, X], [X[:2], X[:2]], "args[0][0]: was float32[3], now float"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_by_its_path(change, caplog, monkeypatch):
    before, now, message = CHANGES[change]
    f = autojit.jit(lambda *args: None, share=False)
    assert f.explain(before) == "it has not been traced yet"
    f(before)
    assert f.explain(before) is None
    text = f.explain(now)
    assert message in text
    assert "\n" not in text
    monkeypatch.setenv("AUTOJIT_EXPLAIN", "1")
    f(now)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("autojit", logging.WARNING)
    assert (
        f"<lambda> is traced again: {text}; called at test_explain.py:" in caplog.text
    )
    f(now)
    assert len(caplog.records) == 1
    assert f.cache_info().traces == 2


def test_arguments():
    f = autojit.jit(lambda *args, **kwargs: None, share=False)
    f(X, n=1)
    assert f.explain(X, n=2) == "kwargs['n']: was 1, now 2"
    text = f.explain(X, X)
    assert (
        text
        == "the call: had 1 positional arguments and the keywords ('n',), has "
        + ("now 2 and ()")
    )
    bound = autojit.jit(Config(lr=1.0).__eq__, share=False)
    bound(2)
    assert bound.explain(3) == "args[0]: was 2, now 3"


def test_the_nearest_is_named():
    f = autojit.jit(lambda x, config: None, share=False)
    for lr, act in ((0.1, "tanh"), (0.2, "sin"), (0.3, "cos")):
        f(X, Config(lr, act))
    f(X, Config(0.3, "relu", [1, 2, 3]))
    for config, message in (
        (Config(0.2, "exp"), "args[1].act: was 'sin', now 'exp'"),
        (Config(0.4, "tanh"), "args[1].lr: was 0.1, now 0.4"),
        (Config(0.3, "relu", [1, 2, 4]), "args[1].sizes[2]: was 3, now 4"),
    ):
        assert f.explain(X, config) == f"{message} (nearest of 4 traced)"


def test_the_nearest_shapes_are_named():
    f = autojit.jit(lambda *args: None, share=False)
    f(X, X, X)
    f(X[:2], X[:2], X[:2])
    f(X[:1], X[:1], X[:1])
    assert f.explain(X[:2], X[:2], X) == "args[2]: was float32[2], now float32[3]"
    text = "args[0]: was float32[3], now float32[2]"
    assert f.explain(X[:2], X, X) == text
    assert f.explain(X[:0], X[:0], X) == f"{text.replace('[2]', '[0]')}, and 1 other"


def test_big_things_are_abridged():
    f = autojit.jit(lambda *args: None, share=False)
    f({"config": {str(i): i for i in range(1000)}, "text": "a" * 1000})
    for now in (
        {"config": {str(i): i for i in range(1001)}, "text": "a" * 1000},
        {"config": {str(i): i for i in range(1000)}, "text": "b" * 1000},
        {"config": np.arange(1000.0), "text": "a" * 1000},
    ):
        assert len(f.explain(now)) < 250


EPS = 1


def of_global(x):
    return x + EPS


def test_a_trace_that_failed_is_none():
    wrong = []

    def fun(x):
        if wrong:
            raise ZeroDivisionError
        return x

    f = autojit.jit(fun, share=False)
    f(X)
    wrong.append(1)
    with pytest.raises(ZeroDivisionError):
        f(X[:2])
    assert f.explain(X[:2]) == "args[0]: was float32[3], now float32[2]"


def test_what_a_function_reads(monkeypatch):
    autojit.jit(of_global)(X)
    assert autojit.jit(of_global).explain(X) is None
    monkeypatch.setitem(globals(), "EPS", 2)
    assert autojit.jit(of_global).explain(X) == f"{__name__}.EPS has changed"


def test_a_setting_of_jax(monkeypatch, caplog):
    f = autojit.jit(lambda x: x + 1, share=False)
    f(X)
    monkeypatch.setenv("AUTOJIT_EXPLAIN", "1")
    with jax.numpy_rank_promotion("raise"):
        f(X)
    assert "a setting of JAX" in caplog.text


def test_the_switch_of_jax(caplog):
    f = autojit.jit(lambda x, n: x + n, share=False)
    with jax.explain_cache_misses(True):
        f(X, 1)
        f(X, 2)
    ours = [
        record.getMessage() for record in caplog.records if record.name == "autojit"
    ]
    assert "<lambda> is traced: it has not been traced yet; called at test_" in ours[0]
    assert "<lambda> is traced again: args[1]: was 1, now 2; called at test_" in ours[1]
    f(X, 3)
    assert len(ours) == 2


# --- limits ---


def test_no_retracing():
    f = autojit.jit(lambda x, n: x + n, share=False)
    g = autojit.jit(lambda x: x, share=False)
    f(X, 1)
    with autojit.no_retracing():
        f(X, 1)
        g(X)  # for the first time
        with pytest.raises(
            autojit.RetracingError,
            match=r"no_retracing\(\) forbids: .*was 1, now 2; called at test_",
        ):
            f(X, 2)
        with pytest.raises(
            autojit.RetracingError, match=r"was float32\[3\], now float"
        ):
            g(X[:2])
    f(X, 2)
    g(X[:2])
    assert f.cache_info()[:4] == (1, 2, 2, 2)
    assert g.cache_info().traces == 2


def test_max_traces():
    f = autojit.jit(lambda x, n: x + n, share=False)
    with autojit.max_traces(2):
        for n in (1, 2, 1, 2):
            f(X, n)
        with pytest.raises(
            autojit.RetracingError,
            match=r"max_traces\(2\) forbids: .*nearest of 2 traced",
        ):
            f(X, 3)
    with autojit.max_traces(0):
        f(X, 1)
        with pytest.raises(autojit.RetracingError, match="has not been traced yet"):
            autojit.jit(lambda: 1, share=False)()
        with pytest.raises(autojit.RetracingError):
            f.lower(X, 4)
    with pytest.raises(ValueError, match="-1"):
        autojit.max_traces(-1)
    for wrong in (1.5, True, "1", None):
        with pytest.raises(TypeError, match="needs an integer"):
            autojit.max_traces(wrong)


def test_the_tighter_limit_holds():
    f = autojit.jit(lambda x, n: x + n, share=False)
    f(X, 0)
    with autojit.max_traces(1), autojit.max_traces(5):
        f(X, 1)
        with pytest.raises(autojit.RetracingError):
            f(X, 2)
    with (
        autojit.no_retracing(),
        autojit.max_traces(5),
        pytest.raises(autojit.RetracingError),
    ):
        f(X, 2)


def test_limits_are_those_of_a_thread():
    f = autojit.jit(lambda x, n: x + n, share=False)
    f(X, 0)
    with autojit.no_retracing():
        other = threading.Thread(target=f, args=(X, 1))
        other.start()
        other.join()
    assert f.cache_info().traces == 2


def test_an_error_in_a_block_leaves_it():
    f = autojit.jit(lambda x, n: x + n, share=False)
    f(X, 0)
    with pytest.raises(autojit.RetracingError), autojit.no_retracing():
        f(X, 1)
    f(X, 1)


def test_blocks_may_end_in_any_order():
    f = autojit.jit(lambda x, n: x + n, share=False)
    f(X, 0)
    first, second = autojit.max_traces(0), autojit.no_retracing()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(autojit.RetracingError, match="no_retracing"):
        f(X, 1)
    second.__exit__(None, None, None)
    f(X, 1)
    assert _explain._blocks.get() == ()  # nothing is kept of them
    for _ in range(2):  # and be begun again
        with first, pytest.raises(autojit.RetracingError, match="max_traces"):
            f(X, 2)


def test_asynchronous_tasks():
    f = autojit.jit(lambda x, n: x + n, share=False)
    f(X, 0)

    async def later():
        await asyncio.sleep(0)
        f(X, 1)

    async def generate():
        with autojit.no_retracing():
            yield 1
            yield 2

    async def main():
        with autojit.no_retracing():
            inside = asyncio.create_task(later())
            with pytest.raises(autojit.RetracingError):
                await inside
            outlives = asyncio.create_task(later())
        await outlives
        generator = generate()
        await asyncio.create_task(anext(generator))
        await generator.aclose()
        f(X, 2)

    asyncio.run(main())
    assert f.cache_info().traces == 3
