"""Training loops as a user of each library first writes them, and as warnings advise.

Each loop takes what compiles its step, the batches, and `settle`, which brings what the
first step gets into the order in which the others get it. It returns the compiled step,
the loss of each step, and the arrays that are left.
"""

import dataclasses
import functools
import warnings

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import autojit

STEPS = 5
X = np.linspace(-1, 1, 24, dtype="f4").reshape(8, 3)


def numpy_batches():
    """Return what a loader gives: two arrays, other ones for each step."""
    order = np.random.default_rng(0).permutation(8)
    return [(X[np.roll(order, i)], X[np.roll(order, i), :2]) for i in range(STEPS)]


def jax_batches():
    return [jax.tree.map(jnp.asarray, batch) for batch in numpy_batches()]


def as_made(tree):
    return tree


def mean_square(out, y):
    return jnp.mean((out - y) ** 2)


def arrays_of(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]


def equinox_loop(jit, batches, settle):
    """Lets the inputs fade with the number of the step."""
    optimizer = optax.sgd(0.1, momentum=0.9)

    def step(model, state, x, y, number):
        def loss(model):
            return mean_square(jax.vmap(model)(x / (1 + number)), y)

        value, gradient = eqx.filter_value_and_grad(loss)(model)
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, updates), state, value

    step, losses = jit(step), []
    model = eqx.nn.MLP(3, 2, width_size=4, depth=1, key=jax.random.key(0))
    state = optimizer.init(eqx.filter(model, eqx.is_array))
    for number, (x, y) in enumerate(batches):
        model, state, loss = step(model, state, x, y, number)
        losses.append(float(loss))
    return step, losses, arrays_of((model, state))


class Module(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.linear(x))


def nnx_step(model, optimizer, x, y):
    value, gradient = nnx.value_and_grad(lambda model: mean_square(model(x), y))(model)
    optimizer.update(model, gradient)
    return model, optimizer, value


def nnx_model_and_optimizer():
    model = Module(nnx.Rngs(0))
    return model, nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)


def nnx_loop(jit, batches, settle):
    """Returns what has changed, as it has to."""
    model, optimizer = settle(nnx_model_and_optimizer())
    step, losses = jit(nnx_step), []
    for x, y in batches:
        model, optimizer, loss = step(model, optimizer, x, y)
        losses.append(float(loss))
    return step, losses, arrays_of(nnx.state((model, optimizer)))


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(jnp.tanh(linen.Dense(4)(x)))


def linen_loop(jit, batches, settle):
    """Counts steps in Python, which `TrainState` does."""

    def step(state, x, y):
        def loss(params):
            return mean_square(state.apply_fn(params, x), y)

        value, gradient = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradient), value

    net = Net()
    params = settle(net.init(jax.random.key(0), X))
    tx = optax.sgd(0.1, momentum=0.9)
    state = TrainState.create(apply_fn=net.apply, params=params, tx=tx)
    step, losses = jit(step), []
    for x, y in batches:
        state, loss = step(state, x, y)
        losses.append(float(loss))
    assert int(state.step) == STEPS
    return step, losses, arrays_of((state.params, state.opt_state))


def haiku_loop(jit, batches, settle):
    """Has nothing that changes but arrays."""

    @hk.without_apply_rng
    @hk.transform
    def net(x):
        return hk.Linear(2)(jnp.tanh(hk.Linear(4)(x)))

    optimizer = optax.sgd(0.1, momentum=0.9)

    def step(params, state, x, y):
        def loss(params):
            return mean_square(net.apply(params, x), y)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    params = settle(net.init(jax.random.key(0), X))
    state = optimizer.init(params)
    step, losses = jit(step), []
    for x, y in batches:
        params, state, loss = step(params, state, x, y)
        losses.append(float(loss))
    return step, losses, arrays_of((params, state))


@dataclasses.dataclass
class Layer:
    weight: jax.Array

    def __call__(self, x):
        return jnp.tanh(x @ self.weight)


@dataclasses.dataclass
class Trainer:
    layers: list
    rate: float = 0.5
    step: int = 0

    def train(self, x, y):
        def loss(weights):
            out = x
            for weight in weights:
                out = dataclasses.replace(self.layers[0], weight=weight)(out)
            return mean_square(out, y)

        weights = [layer.weight for layer in self.layers]
        value, gradient = jax.value_and_grad(loss)(weights)
        for layer, change in zip(self.layers, gradient, strict=True):
            layer.weight = layer.weight - self.rate / (1 + self.step) * change
        self.step += 1
        return self, value


def initial_layers(kind):
    return [kind(jnp.eye(3, 4)), kind(jnp.ones((4, 2)) / 4)]


def classes_loop(jit, batches, settle, trainer=Trainer, layer=Layer):
    """Changes its object in place, and returns it."""
    trainer = trainer(initial_layers(layer))
    step, losses = jit(type(trainer).train), []
    for x, y in batches:
        trainer, loss = step(trainer, x, y)
        losses.append(float(loss))
    assert int(trainer.step) == STEPS
    return step, losses, [layer.weight for layer in trainer.layers]


def dict_loop(jit, batches, settle):
    """Asks a schedule with the number of the step."""
    schedule = optax.cosine_decay_schedule(0.5, decay_steps=10)

    def step(params, number, x, y):
        def loss(params):
            return mean_square(x @ params["w"] + params["b"], y)

        value, gradient = jax.value_and_grad(loss)(params)
        rate = schedule(number)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient), value

    params = settle({"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
    step, losses = jit(step), []
    for number, (x, y) in enumerate(batches):
        params, loss = step(params, number, x, y)
        losses.append(float(loss))
    return step, losses, arrays_of(params)


# The same classes for `jax.jit`, which has to be told of them.


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["weight"], meta_fields=[]
)
class KnownLayer(Layer):
    pass


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["layers", "step"],
    meta_fields=["rate"],
)
class KnownTrainer(Trainer):
    pass


def by_tree_map(params):
    return jax.tree.map(lambda a: a, params)


def by_merge(modules):
    return nnx.merge(*nnx.split(modules))


@dataclasses.dataclass
class Style:
    loop: callable
    settle: callable  # for the order in which the second step gets its arguments
    expected: callable  # the loop with what the library has for it
    named: tuple  # for the option `traced`
    changes: str | None = None  # the one place that changes if batches are of JAX


STYLES = {
    "Equinox": Style(
        equinox_loop,
        as_made,
        functools.partial(equinox_loop, eqx.filter_jit),
        ("x", "y", "number"),
        "args[4]",
    ),
    "NNX": Style(nnx_loop, by_merge, functools.partial(nnx_loop, nnx.jit), ("x", "y")),
    "Linen": Style(
        linen_loop,
        by_tree_map,
        functools.partial(linen_loop, jax.jit),
        ("state.step", "x", "y"),
        "args[0].step",
    ),
    "Haiku": Style(
        haiku_loop, by_tree_map, functools.partial(haiku_loop, jax.jit), ("x", "y")
    ),
    "classes": Style(
        classes_loop,
        as_made,
        functools.partial(
            classes_loop, jax.jit, trainer=KnownTrainer, layer=KnownLayer
        ),
        ("self.step", "x", "y"),
        "args[0].step",
    ),
    "dict": Style(
        dict_loop,
        by_tree_map,
        functools.partial(dict_loop, jax.jit),
        ("number", "x", "y"),
        "args[1]",
    ),
}
styles = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
# Where each step is compiled anew, those of libraries take their time.
styles_slowly = pytest.mark.parametrize(
    "style",
    [
        pytest.param(style, id=name, marks=[pytest.mark.slow] * name[0].isupper())
        for name, style in STYLES.items()
    ],
)


def told(run):
    """Return what a loop returns, and what autojit warns of meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run()
    ours = autojit.RetraceWarning, autojit.LostChangeWarning
    ours = [one for one in caught if one.category in ours]
    assert all(one.filename == __file__ for one in ours)
    return result, [(one.category, str(one.message)) for one in ours]


def ours(**options):
    return functools.partial(autojit.jit, share=False, **options)


def close(result, expected):
    for got, wanted in zip(result[1:], expected[1:], strict=True):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def expected():
    return functools.cache(
        lambda name: STYLES[name].expected(
            batches=numpy_batches(), settle=STYLES[name].settle
        )
    )


def name_of(style):
    return next(name for name, known in STYLES.items() if known is style)


# --- as first written ---


@styles_slowly
def test_numpy_batches_are_compiled_one_by_one(style, expected):
    """The places of x and y are named, and what else changes each time."""
    result, said = told(lambda: style.loop(ours(), numpy_batches(), as_made))
    assert result[0].cache_info().traces == STEPS
    ((category, text),) = said
    assert category is autojit.RetraceWarning
    advised = text.partition("traced=(")[2].partition(")")[0].split(", ")
    assert len(advised) == len(style.named)
    close(result, expected(name_of(style)))


@styles_slowly
def test_a_number_that_changes_is_named(style, expected):
    """With batches of JAX it alone changes, where there is one."""
    result, said = told(lambda: style.loop(ours(), jax_batches(), as_made))
    close(result, expected(name_of(style)))
    traces = result[0].cache_info().traces
    if style.changes is None:
        # The second step has what the first one returns, in another order.
        assert (traces, said) == (2, [])
    else:
        assert traces == STEPS
        ((category, text),) = said
        assert category is autojit.RetraceWarning
        assert f"calls that differ in {style.changes} alone: " in text
        assert f'traced="{style.changes}" or traced="auto"' in text


def test_an_nnx_step_that_does_not_return_what_it_changes():
    model, optimizer = by_merge(nnx_model_and_optimizer())
    before = jnp.array(model.linear.kernel[...])
    step = ours()(lambda *args: nnx_step(*args)[2])

    def loop():
        return [step(model, optimizer, X[:4], X[:4, :2]) for _ in range(STEPS)]

    losses, said = told(loop)
    ((category, text),) = said
    assert category is autojit.LostChangeWarning
    paths = text.partition(" has changed ")[2].partition(" and ")[0].split(", ")
    assert paths == [
        "args[0].linear.bias._raw_value",
        "args[0].linear.kernel._raw_value",
        "args[0].norm.bias._raw_value",
        "args[0].norm.mean._raw_value",
        "args[0].norm.scale._raw_value",
    ]
    np.testing.assert_array_equal(losses, losses[:1] * STEPS)
    np.testing.assert_array_equal(model.linear.kernel[...], before)


def test_a_method_that_does_not_return_its_object():
    trainer = Trainer(initial_layers(Layer))
    step = ours()(lambda trainer, x, y: trainer.train(x, y)[1])
    losses, said = told(lambda: [step(trainer, X, X[:, :2]) for _ in range(STEPS)])
    ((category, text),) = said
    assert category is autojit.LostChangeWarning
    assert (
        " has changed args[0].layers[0].weight, args[0].layers[1].weight, "
        "args[0].step in place" in text
    )
    np.testing.assert_array_equal(losses, losses[:1] * STEPS)
    assert trainer.step == 0


# --- as the warnings advise ---


@styles
def test_what_changes_is_found(style, expected):
    """The first step has the values, the second and all others have tracers."""
    result, said = told(
        lambda: style.loop(ours(traced="auto"), numpy_batches(), style.settle)
    )
    assert result[0].cache_info().traces == 2
    assert said == []
    close(result, expected(name_of(style)))


@pytest.mark.parametrize("name", ["NNX", "Linen", "Haiku", "dict"])
def test_what_changes_is_found_in_another_order(name, expected):
    """The order of keys is no reason not to learn what else changes."""
    loop = STYLES[name].loop
    result, said = told(lambda: loop(ours(traced="auto"), numpy_batches(), as_made))
    assert result[0].cache_info().traces == 2
    assert said == []
    close(result, expected(name))


@styles
def test_what_changes_is_named(style, expected):
    result, said = told(
        lambda: style.loop(ours(traced=style.named), numpy_batches(), style.settle)
    )
    assert result[0].cache_info().traces == 1
    assert said == []
    close(result, expected(name_of(style)))
