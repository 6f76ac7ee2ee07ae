"""Dispatchers in JAX transformations, around them, and in one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import walk_leaves
from jax import lax
from kinds import Data, Plain, Slots

import autojit


def energy(params, x, power=2):
    """Return a scalar; `params` is an object that only autojit takes apart."""
    hidden = jnp.tanh(params.layers["w"] @ x + params.bias)
    return (hidden**power).sum() * params.scale


def make_params(w):
    return Plain(layers={"w": w, "name": "dense"}, bias=w[0], scale=0.5)


@pytest.fixture
def w():
    return jnp.linspace(-1.0, 1.0, 9).reshape(3, 3)


@pytest.fixture(params=[autojit.jit, autojit.jax_autojit], ids=["jit", "jax_autojit"])
def wrap(request):
    return request.param


def close(a, b):
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(a) == len(b)
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6)
        assert jnp.asarray(p).dtype == jnp.asarray(q).dtype


# A function of arrays that calls `energy` with an object, whole or wrapped.


def with_object(energy):
    def f(w, x):
        return energy(make_params(w), x, power=3)

    return f


TRANSFORMATIONS = {
    "jit": lambda f: jax.jit(f),
    "grad": lambda f: jax.grad(f),
    "grad of both": lambda f: jax.grad(f, argnums=(0, 1)),
    "value_and_grad": lambda f: jax.value_and_grad(f),
    "jit of grad": lambda f: jax.jit(jax.grad(f)),
    "grad of jit": lambda f: jax.grad(jax.jit(f)),
    "vmap": lambda f: lambda w, x: jax.vmap(f, (None, 0))(w, jnp.stack([x, 2 * x])),
    "vmap of both": lambda f: (
        lambda w, x: jax.vmap(f)(jnp.stack([w, w + 1]), jnp.stack([x, x * 2]))
    ),
    "vmap of grad": lambda f: (
        lambda w, x: jax.vmap(jax.grad(f), (None, 0))(w, jnp.stack([x, 2 * x]))
    ),
    "jacfwd": lambda f: jax.jacfwd(f),
    "jacrev": lambda f: jax.jacrev(f),
    "hessian": lambda f: jax.hessian(f, argnums=1),
    "jvp": lambda f: lambda w, x: jax.jvp(f, (w, x), (w, x)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "scan": lambda f: (
        lambda w, x: lax.scan(
            lambda carry, row: (carry + f(w, row), carry * 2),
            0.0,
            jnp.stack([x, x * 2]),
        )
    ),
    "fori_loop": lambda f: (
        lambda w, x: lax.fori_loop(0, 3, lambda i, total: total + f(w, x * i), 0.0)
    ),
    "cond": lambda f: (
        lambda w, x: lax.cond(x.sum() > 0, lambda: f(w, x), lambda: f(w, -x) * 2)
    ),
    "while_loop": lambda f: (
        lambda w, x: lax.while_loop(
            lambda total: total < 5.0, lambda total: total + f(w, x) + 1.0, 0.0
        )
    ),
}


@pytest.fixture(params=TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def transform(request):
    return request.param


def test_a_dispatcher_inside_of_a_transformation(transform, wrap, w, x):
    dispatcher = wrap(energy)
    expected = transform(with_object(energy))(w, x)
    close(transform(with_object(dispatcher))(w, x), expected)
    close(transform(with_object(dispatcher))(w, x), expected)


def test_a_dispatcher_around_a_transformation(transform, w, x):
    expected = transform(with_object(energy))(w, x)
    dispatcher = autojit.jit(transform(with_object(energy)))
    close(dispatcher(w, x), expected)
    close(dispatcher(w, x), expected)
    assert dispatcher.cache_info().hits == 1


def test_a_transformation_applied_to_a_dispatcher(transform, w, x):
    expected = transform(with_object(energy))(w, x)
    dispatcher = autojit.jit(with_object(energy))
    transformed = transform(dispatcher)
    close(transformed(w, x), expected)
    close(transformed(w, x), expected)
    close(dispatcher(w, x), energy(make_params(w), x, power=3))


def test_dispatchers_on_both_sides_of_a_transformation(transform, w, x):
    expected = transform(with_object(energy))(w, x)
    inside = autojit.jit(with_object(autojit.jit(energy)))
    dispatcher = autojit.jit(transform(inside))
    close(dispatcher(w, x), expected)
    close(dispatcher(w + 1, x), transform(with_object(energy))(w + 1, x))


# One at a time, where results or arguments are more than arrays.


def test_jit_may_call_a_dispatcher_that_returns_objects(w, x):
    @autojit.jit
    def make(w):
        return Plain(a=w * 2, name="made", slots=Slots(w + 1, 3))

    @jax.jit
    def f(w):
        obj = make(w)
        assert obj.name == "made"
        assert obj.slots.b == 3
        return obj.a + obj.slots.a

    close(f(w), w * 2 + w + 1)
    close(f(w + 1), (w + 1) * 2 + w + 2)


def test_the_same_dispatcher_inside_and_outside_of_jit(w, x):
    f = autojit.jit(energy)
    params = make_params(w)
    outside = f(params, x)
    inside = jax.jit(lambda w, x: f(make_params(w), x))(w, x)
    close(outside, energy(params, x))
    close(inside, energy(params, x))
    close(f(params, x), energy(params, x))
    assert f.cache_info().currsize == 1


def test_a_tracer_of_an_outer_trace_does_not_leak(w):
    f = autojit.jit(lambda box, n: box.a * n)

    @jax.jit
    def outer(w):
        return f(Plain(a=w), 2) + f(Plain(a=w + 1), 2)

    with jax.checking_leaks():
        close(outer(w), w * 2 + (w + 1) * 2)
    close(f(Plain(a=w), 2), w * 2)


def test_grad_with_auxiliary_data(w, x):
    def loss(w, x):
        value = energy(make_params(w), x)
        return value, {"name": "aux", "value": value * 2}

    inner = jax.grad(autojit.jit(loss), has_aux=True)(w, x)
    outer = autojit.jit(jax.grad(loss, has_aux=True))(w, x)
    for gradient, aux in (inner, outer):
        close(gradient, jax.grad(loss, has_aux=True)(w, x)[0])
        assert aux["name"] == "aux"
        close(aux["value"], energy(make_params(w), x) * 2)


def test_the_body_of_a_scan_may_be_a_dispatcher(x):
    def body(carry, row):
        return carry + row, {"carry": carry, "row": row * 2}

    expected = lax.scan(body, jnp.zeros(()), x)
    close(lax.scan(autojit.jit(body), jnp.zeros(()), x), expected)


def test_the_body_of_a_scan_may_use_a_static_of_a_dispatcher(x):
    @autojit.jit
    def total(x, config):
        def body(carry, row):
            return step(carry, row, config), None

        return lax.scan(body, jnp.zeros(()), x)[0]

    @autojit.jit
    def step(carry, row, config):
        return carry * config.b + row if config.a else carry - row

    close(total(x, Data(True, 2.0)), ((0 * 2 + x[0]) * 2 + x[1]) * 2 + x[2])
    close(total(x, Data(False, 2.0)), -x.sum())


def test_the_branches_of_a_cond_may_be_dispatchers(x):
    plus, minus = autojit.jit(lambda x: x + 1), autojit.jit(lambda x: x - 1)
    for jit in (lambda f: f, jax.jit, autojit.jit):
        f = jit(lambda p, x: lax.cond(p, plus, minus, x))
        close(f(jnp.asarray(True), x), x + 1)
        close(f(jnp.asarray(False), x), x - 1)


def test_switch_over_dispatchers(x):
    branches = [autojit.jit(lambda x, n=n: x * n) for n in range(3)]
    for i in range(3):
        close(lax.switch(jnp.asarray(i), branches, x), x * i)


def test_vmap_inside_sees_one_row(w):
    shapes = []

    @autojit.jit
    def f(box):
        shapes.append(box.a.shape)
        return box.a.sum()

    close(jax.vmap(lambda row: f(Plain(a=row)))(w), w.sum(1))
    assert all(shape == (3,) for shape in shapes)
    close(f(Plain(a=w)), w.sum())
    assert shapes[-1] == (3, 3)


def test_eval_shape_of_a_dispatcher(w, x):
    traces = []

    @autojit.jit
    def f(w, x):
        traces.append(1)
        return {"a": w @ x, "b": [x.astype(jnp.int32)]}

    shapes = jax.eval_shape(f, w, x)
    assert shapes == {
        "a": jax.ShapeDtypeStruct((3,), w.dtype),
        "b": [jax.ShapeDtypeStruct((3,), jnp.int32)],
    }
    spec = jax.ShapeDtypeStruct((5, 3), w.dtype)
    assert jax.eval_shape(f, spec, x)["a"].shape == (5,)
    assert len(traces) == 2
    close(f(w, x)["a"], w @ x)


def test_eval_shape_of_a_function_that_calls_a_dispatcher(w, x):
    f = autojit.jit(energy)
    out = jax.eval_shape(lambda w, x: f(make_params(w), x), w, x)
    assert (out.shape, out.dtype) == ((), w.dtype)


def test_a_dispatcher_may_call_eval_shape(w, x):
    @autojit.jit
    def f(w, x):
        out = jax.eval_shape(lambda w, x: w @ x, w, x)
        return jnp.zeros(out.shape, out.dtype), out.shape

    zeros, shape = f(w, x)
    assert shape == (3,)
    close(zeros, jnp.zeros(3))


def test_make_jaxpr_of_a_dispatcher(w, x):
    jaxpr = jax.make_jaxpr(autojit.jit(with_object(energy)))(w, x)
    assert [v.aval.shape for v in jaxpr.jaxpr.invars] == [(3, 3), (3,)]
    assert [a.shape for a in jaxpr.out_avals] == [()]
    assert "tanh" in str(jaxpr)
    (result,) = jax.core.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, w, x)
    close(result, energy(make_params(w), x, power=3))


def primitives(jaxpr):
    """Return the names of all operations, those of inner functions in place."""
    names = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("jit", "pjit"):
            names += primitives(eqn.params["jaxpr"].jaxpr)
        else:
            names.append(eqn.primitive.name)
    return names


def test_make_jaxpr_has_the_operations_of_the_function_alone(w, x):
    plain = jax.make_jaxpr(with_object(energy))(w, x)
    wrapped = jax.make_jaxpr(with_object(autojit.jit(energy)))(w, x)
    assert primitives(wrapped.jaxpr) == primitives(plain.jaxpr)


def test_a_dispatcher_may_call_make_jaxpr(x):
    f = autojit.jit(lambda x, n: (x, str(jax.make_jaxpr(lambda y: y * n)(x))))
    assert "mul" in f(x, 3)[1]


# disable_jit.


def test_disable_jit_runs_the_function_itself(x):
    seen = []

    @autojit.jit
    def f(x, obj):
        seen.append(isinstance(x, jax.core.Tracer))
        seen.append(isinstance(obj.a, jax.core.Tracer))
        if x.sum() > 0:
            return x + obj.a, float(x.sum())
        return x

    with pytest.raises(jax.errors.TracerBoolConversionError):
        f(x, Plain(a=x))
    seen.clear()
    with jax.disable_jit():
        for _ in range(2):
            result, total = f(x, Plain(a=x))
            close(result, x + x)
            assert type(total) is float
            assert total == float(x.sum())
    assert seen == [False] * 4
    assert f.cache_info().currsize == 0


def test_disable_jit_of_a_call_that_has_a_specialization(x):
    calls = []

    @autojit.jit
    def f(x, n):
        calls.append(isinstance(x, jax.core.Tracer))
        return x * n

    f(x, 2)
    f(x, 2)
    assert calls == [True]
    with jax.disable_jit():
        close(f(x, 2), x * 2)
        close(f(x, 2), x * 2)
    assert calls == [True, False, False]
    close(f(x, 2), x * 2)
    assert calls == [True, False, False]


def test_disable_jit_keeps_the_arguments_of_the_caller(x):
    @autojit.jit
    def f(x, obj):
        return x, obj.name, obj.items

    with jax.disable_jit():
        array, name, items = f(x, Plain(name="n", items=[1, x]))
    close(array, x)
    assert name == "n"
    assert items[0] == 1
    close(items[1], x)


def test_disable_jit_of_methods_iterators_and_wrapped_objects(x):
    class Model:
        def __init__(self, w):
            self.w = w

        @autojit.jit
        def rows(self, x):
            for row in self.w:
                yield row @ x

        def __call__(self, x):
            return self.w @ x

    model = Model(jnp.eye(3))
    with jax.disable_jit():
        assert [float(v) for v in model.rows(x)] == [0.0, 1.0, 2.0]
        close(autojit.jit(model)(x), x)


def test_an_exception_under_disable_jit_propagates(x):
    @autojit.jit
    def f(x):
        raise KeyError("mine")

    with jax.disable_jit(), pytest.raises(KeyError, match="mine"):
        f(x)


# Dispatchers in dispatchers.


def test_nested_dispatchers_pass_objects_to_one_another(w, x):
    @autojit.jit
    def inner(params, x, scale):
        return Data(params.layers["w"] @ x * scale, [params])

    @autojit.jit
    def outer(params, x):
        data = inner(params, x, 2.0)
        assert type(data) is Data
        assert data.b[0].layers["name"] == "dense"
        return data, inner(data.b[0], data.a, 3.0).a

    data, result = outer(make_params(w), x)
    close(data.a, w @ x * 2)
    close(data.b[0].bias, w[0])
    close(result, w @ (w @ x * 2) * 3)
    assert not any(isinstance(a, jax.core.Tracer) for a in walk_leaves(data))


def test_a_dispatcher_may_call_itself(x):
    @autojit.jit
    def power(x, n):
        return jnp.ones_like(x) if n == 0 else x * power(x, n - 1)

    close(power(x, 4), x**4)
    assert power.cache_info().currsize == 5
    close(power(x, 4), x**4)
    assert power.cache_info().traces == 5


def test_a_dispatcher_may_be_an_argument_of_another(x):
    inner = autojit.jit(lambda x, n: x * n)
    outer = autojit.jit(lambda f, x: f(x, 2) + f(x, 3))
    close(outer(inner, x), x * 5)
    close(outer(inner, x + 1), (x + 1) * 5)
    assert outer.cache_info().traces == 1


def test_a_dispatcher_may_return_a_dispatcher(x):
    inner = autojit.jit(lambda x: x * 2)
    result = autojit.jit(lambda x: {"f": inner, "x": x})(x)
    assert result["f"] is inner


def test_a_dispatcher_made_in_a_trace(x):
    @autojit.jit
    def outer(x, n):
        @autojit.jit
        def inner(box):
            return box.a * n

        return inner(Plain(a=x))

    close(outer(x, 3), x * 3)
    close(outer(x + 1, 3), (x + 1) * 3)
    close(outer(x, 4), x * 4)


def test_random_keys_in_objects(x):
    @autojit.jit
    def draw(state):
        state.key, key = jax.random.split(state.key)
        return jax.random.normal(key, (2,)), state

    key = jax.random.key(0)
    first, state = draw(Plain(key=key, n=1))
    second, _ = draw(state)
    new, sub = jax.random.split(key)
    close(first, jax.random.normal(sub, (2,)))
    close(second, jax.random.normal(jax.random.split(new)[1], (2,)))
