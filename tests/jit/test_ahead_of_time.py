"""A dispatcher ahead of a call: `trace`, `lower`, `eval_shape` and `flat`."""

import copy
import dataclasses
import functools
import gc
import subprocess
import sys
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import autojit


@dataclasses.dataclass
class Layer:
    w: object
    act: str = "tanh"

    def __call__(self, x):
        return {"y": getattr(jnp, self.act)(self.w @ x), "act": self.act}

    @autojit.jit
    def method(self, x):
        return self(x)


def apply(layer, x, *, scale=1.0):
    return {**layer(x), "y": scale * layer(x)["y"], "layer": layer, "scale": scale}


W, X = jnp.arange(6.0).reshape(2, 3), jnp.arange(3.0)
ABSTRACT_W = jax.ShapeDtypeStruct((2, 3), jnp.float32)
ABSTRACT_X = jax.ShapeDtypeStruct((3,), jnp.float32)


@pytest.fixture
def f():
    return autojit.jit(apply, share=False)


def assert_same(result, expected):
    left, right = autojit.flatten(result), autojit.flatten(expected)
    assert left[1] == right[1]
    for one, other in zip(left[0], right[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


# --- the stages ---


@pytest.mark.parametrize(
    ("w", "x"), [(W, X), (ABSTRACT_W, ABSTRACT_X), (ABSTRACT_W, X)]
)
def test_a_compiled_one_does_what_the_function_does(f, w, x):
    compiled = f.lower(Layer(w), x, scale=2.0).compile()
    assert_same(compiled(Layer(W), X, scale=2.0), apply(Layer(W), X, scale=2.0))
    layer = Layer(2 * W)
    result = compiled(layer, X, scale=2.0)
    assert_same(result, apply(layer, X, scale=2.0))
    assert result["layer"].w is layer.w  # untouched, as in a call


def test_stages_and_calls_share_traces(f):
    f.trace(Layer(ABSTRACT_W), ABSTRACT_X).lower().compile()
    f.lower(Layer(W), X)
    f.eval_shape(Layer(W), ABSTRACT_X)
    f.flat(Layer(W), X)
    f(Layer(W), X)
    assert f.cache_info()[:3] == (1, 1, 1)
    f.lower(Layer(W, "sin"), X)
    assert f.cache_info().traces == 2
    f(Layer(W, "sin"), X)
    assert f.cache_info().traces == 2


def test_a_stage_has_what_that_of_jax_has(f):
    def plain(w, x):
        return jnp.tanh(w @ x)

    theirs = jax.jit(plain).trace(W, X)
    ours = f.trace(Layer(W), X)
    for _ in range(3):
        missing = {name for name in dir(theirs) if name[0] != "_"} - set(dir(ours))
        assert not missing
        for name in ("as_text", "cost_analysis", "memory_analysis"):
            if hasattr(theirs, name):
                assert type(getattr(ours, name)()) is type(getattr(theirs, name)())
        if hasattr(theirs, "lower"):
            theirs, ours = theirs.lower(), ours.lower()
        elif hasattr(theirs, "compile"):
            options = {"xla_embed_ir_in_executable": True}
            theirs, ours = theirs.compile(), ours.compile(compiler_options=options)
    assert isinstance(f, jax.stages.Wrapped)
    assert "tanh" in str(f.trace(Layer(W), X).jaxpr)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = ours.no_such_thing
    assert_same(copy.copy(ours)(Layer(W), X), f(Layer(W), X))


def test_arguments_and_results_are_told_in_objects(f):
    stage = f.trace(Layer(ABSTRACT_W), X, scale=2.0)
    for _ in range(3):
        (layer, x), kwargs = stage.args_info
        assert type(layer) is Layer
        assert (layer.act, kwargs) == ("tanh", {"scale": 2.0})
        assert (layer.w.shape, x.shape, x.dtype) == ((2, 3), (3,), jnp.float32)
        out = stage.out_info
        assert type(out["y"]) is jax.ShapeDtypeStruct
        assert (out["y"].shape, out["y"].dtype) == ((2,), jnp.float32)
        assert out["layer"] == Layer(ABSTRACT_W)
        assert out["scale"] == 2.0
        stage = stage.lower() if hasattr(stage, "lower") else stage
        stage = stage.compile() if hasattr(stage, "compile") else stage


def test_eval_shape_computes_nothing(f):
    expected = {"y": jax.ShapeDtypeStruct((2,), jnp.float32), "act": "tanh"}
    expected |= {"layer": Layer(ABSTRACT_W), "scale": 1.0}
    assert f.eval_shape(Layer(ABSTRACT_W), ABSTRACT_X) == expected
    assert f.eval_shape(Layer(W), X) == expected
    copied = autojit.jit(apply, forward=False)
    assert copied.eval_shape(Layer(W), X) == expected
    assert autojit.jit(lambda x: x + 1).eval_shape(ABSTRACT_X) == ABSTRACT_X
    assert autojit.jit(lambda n: n + 1).eval_shape(1) == 2


def test_methods_partials_and_callable_objects():
    layer = Layer(W)
    expected = layer(X)
    for stage in (
        Layer.method.lower(layer, X),
        autojit.jit(layer).lower(ABSTRACT_X),
        autojit.jit(layer.__call__).lower(X),
        autojit.jit(functools.partial(Layer.__call__, layer)).lower(X),
    ):
        args = (layer, X) if stage._call.skeleton._num_positional == 2 else (X,)
        assert_same(stage.compile()(*args), expected)


def test_a_stand_in_is_an_array_only_here():
    """A call that gets one gets an object like others."""
    f = autojit.jit(lambda like: jnp.zeros(like.shape, like.dtype))
    assert f(ABSTRACT_X).shape == (3,)
    assert f.eval_shape(ABSTRACT_W) == ABSTRACT_W


def test_inside_of_a_trace(f):
    @jax.jit
    def outer(w, x):
        shape = f.eval_shape(Layer(w), x)["y"].shape
        return f(Layer(w), x)["y"].reshape(shape)

    assert outer(W, X).shape == (2,)


def test_where_jax_does_not_compile(f):
    with jax.disable_jit():
        assert f.eval_shape(Layer(ABSTRACT_W), ABSTRACT_X)["y"].shape == (2,)
        assert "tanh" in str(f.trace(Layer(W), X).jaxpr)


# --- other arguments than those that it was compiled for ---


def make(value):
    return lambda x: x + value


@pytest.mark.parametrize(
    ("lowered_for", "called_with", "message"),
    [
        ([Layer(W), X], [Layer(W, "sin"), X], r"args\[0\].act: was 'tanh', now 'sin'"),
        ([Layer(W), X], [Layer(W), 2.0], r"args\[1\]: was a jax.Array, now 2.0"),
        ([Layer(W), X], [(W, "tanh"), X], r"args\[0\]: was Layer\(w=\*, act='tanh'\)"),
        ([Layer(W), X], [Layer(W)], "had 2 positional arguments .* has now 1"),
        ([[X, X]], [[X, X, X]], r"args\[0\]: had 2 items, has now 3"),
        ([{"a": X}], [{"a": X, "b": 1}], r"args\[0\]: has now 'b'"),
        ([{"a": X, "b": 1}], [{"a": X}], r"args\[0\]: has no longer 'b'"),
        ([{"a": 1, "b": 1}], [{"b": 1, "a": 1}], "keys in another order, 'b' where"),
        ([[[X]] * 2], [[[X], [X]]], r"\[0\]: is no longer the same object as"),
        ([make(1)], [make(2)], r"args\[0\].__closure__\['value'\]: was 1"),
        ([range(1000)], [range(999)], r"args\[0\].*1000.*999"),
        (["a" * 2000], ["b" * 2000], r"was 'a{79} \.\.\., now 'b{79} \.\.\."),
        (
            [np.arange(2000)],
            [np.arange(2001)],
            r"was a numpy array\(\[.{,70}, now a numpy array",
        ),
    ],
)
def test_what_differs_is_told_by_path(lowered_for, called_with, message):
    compiled = autojit.jit(lambda *args: len(args)).lower(*lowered_for).compile()
    assert compiled(*lowered_for) == len(lowered_for)
    with pytest.raises(TypeError, match=message) as raised:
        compiled(*called_with)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_skeletons_tell_how_they_differ():
    _, before = autojit.flatten(Layer([1, 2]))
    _, now = autojit.flatten(Layer([1, 3]))
    assert before.diff(now) == "obj.w[1]: was 2, now 3"
    assert now.diff(before) == "obj.w[1]: was 3, now 2"
    assert before.diff(autojit.flatten(Layer([1, 2]))[1]) is None
    with pytest.raises(TypeError, match="another skeleton"):
        before.diff("something else")


def test_another_shape_is_told_by_path(f):
    compiled = f.lower(Layer(W), X).compile()
    with pytest.raises(TypeError, match=r"Argument 'args\[1\]' compiled with float32"):
        compiled(Layer(W), jnp.ones(4))


def test_the_callers_own_objects_come_back_or_it_is_an_error():
    class Opaque:
        def __reduce__(self):
            raise TypeError("not to be taken apart")

        def __eq__(self, other):
            return type(other) is Opaque

        def __hash__(self):
            return 1

    first, second = Opaque(), Opaque()
    compiled = autojit.jit(lambda obj, x: (obj, x + 1)).lower(first, X).compile()
    assert compiled(first, X)[0] is first
    assert compiled(second, X)[0] is second

    def hides(fun, x):
        return {"holds": lambda: fun}, x

    compiled = autojit.jit(hides).lower(make(1), X).compile()
    with pytest.raises(TypeError, match="what belongs to a function or object"):
        compiled(make(1), X)


class Table:
    """Its reduction leaves out an array that somebody has set."""

    def __init__(self, n):
        self.n, self.w = n, jnp.zeros(n)

    def __reduce__(self):
        return Table, (self.n,)


def test_what_a_reduction_leaves_out_counts():
    compiled = autojit.jit(lambda table: 1.0 * table.w).lower(Table(3)).compile()
    np.testing.assert_array_equal(compiled(Table(3)), np.zeros(3))
    table = Table(3)
    table.w = X
    for _ in range(2):
        with pytest.raises(TypeError, match=r"args\[0\]"):
            compiled(table)
    table.w, table.k = jnp.zeros(3), 5
    with pytest.raises(TypeError, match=r"args\[0\]"):
        compiled(table)


class Fragile:
    broken = False

    def __init__(self, a):
        if Fragile.broken:
            raise ZeroDivisionError
        self.a = a

    def __reduce__(self):
        return Fragile, (self.a,)


def test_arguments_need_not_be_put_together_once_it_is_compiled(monkeypatch):
    f = autojit.jit(lambda obj: obj.a + 1)
    compiled = f.lower(Fragile(X)).compile()
    obj = Fragile(X)
    f(obj)
    monkeypatch.setattr(Fragile, "broken", True)
    for call in (f, compiled):
        np.testing.assert_array_equal(call(obj), X + 1)


@pytest.mark.parametrize("stages", [["trace"], ["lower"], ["lower", "compile"]])
def test_a_stage_keeps_no_array_that_that_of_jax_does_not_keep(stages):
    def kept(f, wrap):
        w, x = jnp.ones((2, 3)), jnp.ones(3)
        refs = weakref.ref(w), weakref.ref(x)
        stage = getattr(f, stages[0])(wrap(w), x)
        for name in stages[1:]:
            stage = getattr(stage, name)()
        del w, x
        gc.collect()
        assert stage.out_info[1].shape == (3,)
        return [ref() is not None for ref in refs]

    theirs = kept(jax.jit(lambda w, x: (w @ x, x)), lambda w: w)
    ours = kept(autojit.jit(lambda layer, x: (layer(x), x)), Layer)
    assert ours == theirs


def test_shapes_are_those_of_jax():
    def fun(x):
        return x, x * 2

    sharded = jax.ShapeDtypeStruct(
        (3,), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    )
    double = jax.ShapeDtypeStruct((3,), np.float64)
    weak = jax.ShapeDtypeStruct((3,), np.float32, weak_type=True)
    for like in (sharded, double, weak):
        assert autojit.jit(fun).eval_shape(like) == jax.jit(fun).eval_shape(like)
        ours, theirs = (jit(fun).lower(like).out_info for jit in (autojit.jit, jax.jit))
        assert [(o.shape, o.dtype) for o in ours] == [
            (o.shape, o.dtype) for o in theirs
        ]


def test_what_is_told_of_outputs_counts_arrays(f):
    compiled = f.lower(Layer(W), X).compile()
    assert [type(s) for s in compiled.output_shardings] == [
        type(X.sharding)  # of `y`: the layer's array is handed back
    ]
    assert len(compiled.output_formats) == 1


# --- errors, warnings, options ---


def test_a_deleted_or_donated_array_has_a_path():
    f = autojit.jit(lambda state, x: state["w"] + x, donate_argnums=0)
    compiled = f.lower({"n": 1, "w": X}, X).compile()
    state = {"n": 1, "w": jnp.ones(3)}
    compiled(state, X)
    with pytest.raises((ValueError, RuntimeError)) as raised:
        compiled(state, X)
    assert any("args[0]['w']" in note for note in raised.value.__notes__)
    twice = jnp.ones(3)
    with pytest.raises((ValueError, RuntimeError)) as raised:
        compiled({"n": 1, "w": twice}, twice)
    assert "args[0]['w'] and args[1] are one array" in raised.value.__notes__


def test_no_frame_of_ours_is_in_an_error():
    def wrong(x):
        raise ZeroDivisionError

    for stage in ("trace", "lower", "eval_shape", "flat"):
        with pytest.raises(ZeroDivisionError) as raised:
            getattr(autojit.jit(wrong), stage)(X)
        files = [str(entry.path) for entry in raised.traceback]
        assert not any("autojit" in file.split("site-packages")[-1] for file in files)
    text = autojit.jit(lambda x: jnp.tanh(x)).lower(X).compile().as_text()
    assert "_stages.py" not in text


def test_a_trace_that_fails_leaves_nothing(f):
    with pytest.raises(AttributeError, match="no_such_function"):
        f.lower(Layer(W, "no_such_function"), X)
    assert f.cache_info().currsize == 0
    with pytest.raises(TypeError):
        f.trace(Layer(W))
    assert f.cache_info().currsize == 0


def test_warnings_are_those_of_a_call():
    def fun(x):
        warnings.warn("look out", UserWarning, stacklevel=1)
        return x + 1

    with pytest.warns(UserWarning, match="look out"):
        autojit.jit(fun).lower(X)
    for use in (autojit.jit(fun), autojit.jit(fun).lower, autojit.jit(fun).eval_shape):
        with pytest.warns(UserWarning, match="look out"):
            use(X)


def test_donated_arguments():
    f = autojit.jit(lambda state, x: {"w": state["w"] + x}, donate_argnums=0)
    stage = f.lower({"w": ABSTRACT_X}, X)
    (state, x), _ = stage.args_info
    assert (state["w"].donated, x.donated) == (True, False)
    given = {"w": jnp.ones(3)}
    stage.compile()(given, X)
    assert given["w"].is_deleted()


# --- flat ---


def test_a_function_of_arrays_alone(f):
    flat = f.flat(Layer(W), X, scale=2.0)
    assert [leaf.shape for leaf in flat.leaves] == [(2, 3), (3,)]
    returned = flat.fun(*flat.leaves)
    assert type(returned) is tuple
    assert_same(flat.unflatten(returned), apply(Layer(W), X, scale=2.0))
    assert "tanh" in str(jax.make_jaxpr(flat.fun)(*flat.leaves))
    grad = jax.grad(lambda *leaves: flat.fun(*leaves)[0].sum())(*flat.leaves)
    assert grad.shape == (2, 3)
    abstract = f.flat(Layer(ABSTRACT_W), ABSTRACT_X, scale=2.0)
    assert abstract.leaves == (ABSTRACT_W, ABSTRACT_X)
    assert abstract.fun(W, X)[0].shape == (2,)
    alone = autojit.jit(lambda x: x + 1).flat(X)
    assert alone.unflatten(alone.fun(X)).shape == (3,)


def test_flat_has_what_comes_back_untouched():
    f = autojit.jit(lambda a, b: {"same": a, "new": a * b.shape[0], "n": b.shape[0]})
    for given in (X, ABSTRACT_X):
        flat = f.flat(given, given)
        result = flat.unflatten(flat.fun(2 * X, X))
        np.testing.assert_array_equal(result["same"], 2 * X)
        np.testing.assert_array_equal(result["new"], 6 * X)
        assert result["n"] == 3
        with jax.disable_jit():
            assert [type(x) for x in flat.fun(X, X)] == [type(X)] * 2
    assert flat.fun(jnp.ones((2, 3)), X)[1].shape == (2, 3)
    with pytest.raises(TypeError, match=r"result\['n'\]: was 3, now 4|obj\['n'\]: was"):
        flat.fun(X[:1], jnp.ones(4))


def test_flat_donates():
    flat = autojit.jit(lambda s: {"w": s["w"] + 1}, donate_argnums=0).flat({"w": X})
    given = jnp.ones(3)
    flat.fun(given)
    assert given.is_deleted()


CALL_IT = """
import sys
import jax.numpy as jnp
from jax import export
exported = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
print(exported.call(jnp.arange(6.0).reshape(2, 3), jnp.arange(3.0))[0].tolist())
"""


def test_an_export_is_called_in_another_process(tmp_path):
    f = autojit.jit(lambda layer, x: layer(x), forward=False)
    flat = f.flat(Layer(ABSTRACT_W), ABSTRACT_X)
    file = tmp_path / "layer.export"
    file.write_bytes(export.export(flat.fun)(*flat.leaves).serialize())
    printed = subprocess.check_output([sys.executable, "-c", CALL_IT, file], text=True)
    np.testing.assert_allclose(eval(printed), Layer(W)(X)["y"], rtol=1e-6)


def test_what_was_traced_can_be_called():
    traced = autojit.jit(lambda layer, n: {"w": layer.w + n}).trace(Layer(W), 2)
    if "__call__" not in vars(jax.stages.Traced):  # not in older versions of JAX
        with pytest.raises(TypeError, match="not callable"):
            traced(Layer(W), 2)
        return
    np.testing.assert_array_equal(traced(Layer(W + 1), 2)["w"], W + 3)
    with pytest.raises(
        TypeError, match=r"was traced for other arguments: args\[1\]: was 2"
    ):
        traced(Layer(W), 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda f, like: f({"a": like}, X),
        lambda f, like: f({"a": like}, like),
        lambda f, like: f({"a": X}, like),
    ],
)
def test_a_stand_in_within_another_trace(call):
    def fun(d, x):
        return {"sum": d["a"] * 2 + x}

    like = jax.ShapeDtypeStruct(X.shape, X.dtype)

    def shape(wrap):
        try:
            return jax.eval_shape(lambda x: call(wrap(fun), like), like)
        except TypeError:  # older versions of JAX take none there
            return TypeError

    for _ in range(2):
        assert shape(autojit.jit) == shape(jax.jit)


def test_a_stand_in_that_only_describes():
    def zeros(like):
        return jnp.zeros(like.shape, like.dtype)

    like = jax.ShapeDtypeStruct((2,), jnp.float32)
    f = autojit.jit(zeros)
    assert f(like).shape == (2,)
    assert jax.jit(lambda x: f(like) + x)(1.0).shape == (2,)
    assert jax.eval_shape(lambda: f(like)).shape == (2,)


def test_the_name_of_a_partial_is_that_of_its_function():
    text = autojit.jit(functools.partial(add, y=1)).lower(X).as_text()
    assert "@jit_add" in text


def add(x, y):
    return x + y
