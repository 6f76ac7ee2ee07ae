"""The workloads: what users call, with small arrays, so that dispatch is timed.

To add one, write a function that builds a `Case`. Its `setup` serves all peers that
take the arguments as they are; `special` serves those that need help, and the floor.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, starmap
from operator import call, itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from case import Call, Case, Function, Setup, Workload, Wrapper, arrays_in

WORKLOADS: dict[str, Workload] = {}


def workload(
    name: str, title: str, *, slow: bool = False
) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Register the decorated function as the `Workload.build` of a new workload."""

    def register(build: Callable[[], Case]) -> Callable[[], Case]:
        WORKLOADS[name] = Workload(name, title, build, slow)
        return build

    return register


def flat(function: Function, *args: Any, wait: Function | None = None) -> Setup:
    """Set up ``function(*args)`` with flat arrays in and out, all else built in."""
    leaves, treedef = jax.tree.flatten(args)
    holes = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def of_arrays(*arrays: jax.Array) -> Any:
        filled = list(leaves)
        for hole, array in zip(holes, arrays, strict=True):
            filled[hole] = array
        results = arrays_in(function(*jax.tree.unflatten(treedef, filled)))
        return tuple(results) if len(results) > 1 else results[0]

    return lambda jit: Call(
        jit(of_arrays), tuple(leaves[hole] for hole in holes), wait=wait
    )


def in_turn(
    function: Function, calls: Sequence[tuple[Any, ...]], order: Sequence[int]
) -> Call:
    """Make one of several calls each time, in the order given, again and again.

    ``starmap`` takes the next arguments and calls, without Python code in between.
    """
    return Call(
        next,
        (starmap(function, cycle([calls[number] for number in order])),),
        first=lambda: [function(*args) for args in calls],
    )


def switching(
    function: Function,
    calls: Sequence[tuple[Any, ...]],
    order: Sequence[int],
    nodes: int | None = None,
) -> Case:
    """Build calls that differ in what is static, each a specialization of its own.

    The floor has as many ``jax.jit`` functions of the arrays, in the same order.
    """

    def flat_in_turn(jit: Wrapper) -> Call:
        flat_calls = [flat(function, *args)(jit) for args in calls]
        return in_turn(call, [(one.function, *one.args) for one in flat_calls], order)

    return Case(
        lambda jit: in_turn(jit(function), calls, order),
        {"flat": flat_in_turn},
        nodes=nodes,
    )


def count_nodes(tree: Any) -> int:
    """Count the containers, dict keys and plain values of `tree`, not its arrays."""
    if isinstance(tree, dict):
        return 1 + len(tree) + sum(map(count_nodes, tree.values()))
    if isinstance(tree, list | tuple):
        return 1 + sum(map(count_nodes, tree))
    return 0 if isinstance(tree, jax.Array) else 1


@workload("W1", "f(x, 2.0, True): one array, two scalars")
def scalars() -> Case:
    """Build a call with a flag, which has to be static, and a number, which may be."""

    def shift(x: jax.Array, y: float, plus: bool) -> jax.Array:
        return x + y if plus else x - y

    x = jnp.arange(4.0)
    args = (x, 2.0, True)
    return Case(
        lambda jit: Call(jit(shift), args),
        {
            "flat": flat(shift, *args),
            "jax.jit": lambda jit: Call(
                jit(shift, static_argnums=(1, 2)), args, "static_argnums"
            ),
            "jax.jit-simple": lambda jit: Call(
                jit(shift, static_argnums=2), args, "float traced"
            ),
            "nnx.jit": lambda jit: Call(
                jit(shift, static_argnums=(1, 2)), args, "static_argnums"
            ),
        },
    )


@workload("W2", "Equinox MLP, 8 arrays, forward")
def equinox_forward() -> Case:
    """Build a call with a module, which holds functions beside its arrays."""
    import equinox as eqx

    model = eqx.nn.MLP(4, 4, width_size=8, depth=3, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_array)
    x = jnp.ones(4)

    def forward(model: eqx.nn.MLP, x: jax.Array) -> jax.Array:
        return model(x)

    def forward_params(params: eqx.nn.MLP, x: jax.Array) -> jax.Array:
        return forward(eqx.combine(params, static), x)

    return Case(
        lambda jit: Call(jit(forward), (model, x)),
        {
            "flat": flat(forward, model, x),
            "jax.jit": lambda jit: Call(
                jit(forward_params), (params, x), "partition, combine"
            ),
        },
    )


@workload("W3", "dict of 20 layers, 40 arrays, 40 plain statics")
def layers() -> Case:
    """Build a call with parameters and settings side by side, as in a home-made model.

    The names of the layers sort as they stand: a dict comes out of ``jax.tree`` with
    its keys sorted, and peers that use it would apply the layers in another order.
    """
    activations = {"tanh": jnp.tanh, "sin": jnp.sin}
    network = {
        f"layer{i:02}": {
            "weight": jnp.full(4, 0.5 + 0.01 * i),
            "bias": jnp.full(4, 0.1),
            "activation": ("tanh", "sin")[i % 2],
            "scale": 1.0 + 0.01 * i,
        }
        for i in range(20)
    }
    x = jnp.ones(4)

    def forward(network: dict[str, dict[str, Any]], x: jax.Array) -> jax.Array:
        for layer in network.values():
            activation = activations[layer["activation"]]
            x = layer["scale"] * activation(layer["weight"] * x + layer["bias"])
        return x

    params = {
        name: {"weight": layer["weight"], "bias": layer["bias"]}
        for name, layer in network.items()
    }
    settings = tuple(
        (layer["activation"], layer["scale"]) for layer in network.values()
    )

    def forward_params(
        settings: tuple[tuple[str, float], ...],
        params: dict[str, dict[str, jax.Array]],
        x: jax.Array,
    ) -> jax.Array:
        joined = {
            name: {**layer, "activation": activation, "scale": scale}
            for (name, layer), (activation, scale) in zip(
                params.items(), settings, strict=True
            )
        }
        return forward(joined, x)

    return Case(
        lambda jit: Call(jit(forward), (network, x)),
        {
            "flat": flat(forward, network, x),
            "jax.jit": lambda jit: Call(
                jit(forward_params, static_argnums=0),
                (settings, params, x),
                "static settings",
            ),
        },
        nodes=count_nodes(network),
    )


@workload("W4", "Flax NNX module, 20 Linear layers, forward")
def nnx_forward() -> Case:
    """Build a call with a module of 40 Variables, which are objects that can change."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    model = nnx.Sequential(*(nnx.Linear(4, 4, rngs=rngs) for _ in range(20)))
    graphdef, state = nnx.split(model)
    x = jnp.ones((1, 4))

    def forward(model: nnx.Sequential, x: jax.Array) -> Any:
        return model(x)

    def forward_split(graphdef: Any, state: Any, x: jax.Array) -> Any:
        return forward(nnx.merge(graphdef, state), x)

    return Case(
        lambda jit: Call(jit(forward), (model, x)),
        {
            "flat": flat(forward, model, x),
            "jax.jit": lambda jit: Call(
                jit(forward_split), (graphdef, state, x), "split, merge"
            ),
            "jax.jit-simple": lambda jit: Call(
                jit(forward), (model, x), "module as a pytree"
            ),
            # A module of its own: nnx.jit writes back to it, in another order.
            "nnx.jit": lambda jit: Call(jit(forward), (nnx.clone(model), x)),
        },
    )


@workload("W5", "Equinox MLP and Adam, training step, 27 arrays in, 28 out")
def training_step() -> Case:
    """Build a step that takes and returns a module and an optimizer state."""
    import equinox as eqx
    import optax

    model = eqx.nn.MLP(4, 4, width_size=8, depth=3, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_array)
    adam = optax.adam(1e-3)
    state = adam.init(params)
    x, y = jnp.linspace(0.0, 1.0, 8).reshape(2, 4), jnp.ones((2, 4))
    loss_last = itemgetter(-1)

    def step(
        model: eqx.nn.MLP, state: Any, x: jax.Array, y: jax.Array
    ) -> tuple[Any, ...]:
        def loss_of(model: eqx.nn.MLP) -> jax.Array:
            return jnp.mean((jax.vmap(model)(x) - y) ** 2)

        loss, grads = eqx.filter_value_and_grad(loss_of)(model)
        updates, state = adam.update(grads, state)
        norms = optax.global_norm(grads), optax.global_norm(updates)
        return eqx.apply_updates(model, updates), state, *norms, loss

    def step_params(params: eqx.nn.MLP, *rest: Any) -> tuple[Any, ...]:
        model, *others = step(eqx.combine(params, static), *rest)
        return eqx.filter(model, eqx.is_array), *others

    return Case(
        lambda jit: Call(jit(step), (model, state, x, y), wait=loss_last),
        {
            "flat": flat(step, model, state, x, y, wait=loss_last),
            "jax.jit": lambda jit: Call(
                jit(step_params),
                (params, state, x, y),
                "partition, combine",
                wait=loss_last,
            ),
        },
    )


@workload("W6", "SGD on a dict of 100 arrays, 100 out")
def sgd_step() -> Case:
    """Build a step with as many outputs as inputs and hardly anything static."""
    params = {f"p{i:02}": jnp.full(4, float(i)) for i in range(100)}

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return sum((jnp.vdot(p, p) for p in params.values()), jnp.zeros(()))

    def sgd(params: dict[str, jax.Array], rate: float) -> dict[str, jax.Array]:
        grads = jax.grad(loss)(params)
        return {name: p - rate * grads[name] for name, p in params.items()}

    args = (params, 0.01)
    p99 = itemgetter("p99")
    return Case(
        lambda jit: Call(jit(sgd), args, wait=p99),
        {
            "flat": flat(sgd, *args, wait=itemgetter(-1)),
            "jax.jit": lambda jit: Call(
                jit(sgd, static_argnums=1), args, "static_argnums", wait=p99
            ),
        },
    )


def config_of(count: int) -> dict[str, Any]:
    """Return a nested config, as a large model has: 15 nodes, and 15 for each layer."""
    layers = [
        {
            "name": f"encoder.layer.{i}",
            "kind": "attention" if i % 3 else "convolution",
            "units": 1000 + i,
            "dropout": 0.1 + 0.001 * i,
            "residual": i % 2 == 0,
            "shape": (64, 512),
        }
        for i in range(count)
    ]
    return {
        "name": "encoder",
        "precision": "float32",
        "epsilon": 1e-6,
        "shuffle": True,
        "notes": None,
        "tags": (),
        "layers": layers,
    }


def configured(config: dict[str, Any], x: jax.Array) -> jax.Array:
    """Use a large config a little."""
    layer = config["layers"][-1] if config["layers"] else {"dropout": 0.5}
    dropout: float = layer["dropout"]
    epsilon: float = config["epsilon"]
    return dropout * x + epsilon


def with_config(count: int) -> Case:
    """Build a call with a config of `count` layers, and the same each time."""
    config, x = config_of(count), jnp.arange(4.0)
    return Case(
        lambda jit: Call(jit(configured), (config, x)),
        {"flat": flat(configured, config, x)},
        nodes=count_nodes(config),
    )


def with_copies(count: int) -> Case:
    """Build calls with copies of a config, which is what the function is compiled for.

    A peer that keeps the objects of that, or of the call before, does not find them
    again: two copies take turns. ``copy.deepcopy`` would keep strings and floats.
    """
    config, x = config_of(count), jnp.arange(4.0)
    copies = [pickle.loads(pickle.dumps(config)) for _ in range(2)]
    calls = [(each, x) for each in (config, *copies)]

    def flat_in_turn(jit: Wrapper) -> Call:
        one = flat(configured, config, x)(jit)
        return in_turn(one.function, [one.args] * len(calls), (1, 2))

    return Case(
        lambda jit: in_turn(jit(configured), calls, (1, 2)),
        {"flat": flat_in_turn},
        nodes=count_nodes(config),
    )


@workload("W7a", "config of 1,500 static nodes, the same objects")
def same_config() -> Case:
    """Build a call with a config that is the very object of the calls before."""
    return with_config(99)


@workload("W7b", "config of 1,500 static nodes, equal copies")
def equal_config() -> Case:
    """Build calls with equal configs that share no string, float or container."""
    return with_copies(99)


@dataclass
class Particle:
    """A plain dataclass, not known to JAX."""

    position: jax.Array
    velocity: jax.Array


@jax.tree_util.register_dataclass
@dataclass
class RegisteredParticle(Particle):
    """The same, registered as a pytree."""


@workload("W8", "list of 1,000 dataclasses, 2,000 arrays")
def particles() -> Case:
    """Build a call with many small objects."""

    def total(particles: list[Particle]) -> jax.Array:
        positions = jnp.stack([particle.position for particle in particles])
        velocities = jnp.stack([particle.velocity for particle in particles])
        return jnp.vdot(positions, velocities)

    plain = [Particle(jnp.array(float(i)), jnp.array(0.5)) for i in range(1000)]
    registered = [RegisteredParticle(p.position, p.velocity) for p in plain]

    def call(particles: list[Any], note: str = "") -> Setup:
        return lambda jit: Call(
            jit(total), (particles,), note, wait=lambda result: result
        )

    return Case(
        call(plain),
        {
            "flat": flat(total, registered, wait=lambda result: result),
            "jax.jit": call(registered, "class registered"),
            "filter_jit": call(registered, "class registered"),
        },
    )


def one_of(count: int) -> Case:
    """Build calls with a static int, one of `count`, at random."""

    def shift(number: int, x: jax.Array) -> jax.Array:
        return x + number

    x = jnp.arange(4.0)
    order = random.Random(0).choices(range(count), k=max(1000, 10 * count))
    return switching(shift, [(number, x) for number in range(count)], order)


@workload("W9a", "one of 2 static ints at random")
def one_of_2() -> Case:
    """Build calls that switch between two specializations."""
    return one_of(2)


@workload("W9b", "one of 16 static ints at random")
def one_of_16() -> Case:
    """Build calls that switch between a few specializations."""
    return one_of(16)


@workload("W9c", "one of 256 static ints at random", slow=True)
def one_of_256() -> Case:
    """Build calls that switch between many specializations."""
    return one_of(256)


@workload("W9d", "one of 1,500 static ints at random", slow=True)
def one_of_1500() -> Case:
    """Build calls that switch between more programs than a CPU caches."""
    return one_of(1500)


@workload("W10", "static numpy array of 1 MB and one array")
def static_array() -> Case:
    """Build a call with a table that is compared byte by byte."""

    def scale(table: np.ndarray, x: jax.Array) -> jax.Array:
        return x * table[-1]

    args = (np.linspace(1, 2, 2**18, dtype=np.float32), jnp.arange(4.0))
    return Case(
        lambda jit: Call(jit(scale), args),
        {
            "flat": flat(scale, *args),
            "jax.jit": lambda jit: Call(jit(scale), args, "traced, copied"),
        },
    )


@workload("W11", "dict of 41 arrays, 40 handed through untouched")
def untouched() -> Case:
    """Build a step that changes one of many arrays, and returns all."""
    state = {f"p{i:02}": jnp.full(4, float(i)) for i in range(41)}

    def step(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {**state, "p40": state["p40"] + 1}

    p40 = itemgetter("p40")
    return Case(
        lambda jit: Call(jit(step), (state,), wait=p40),
        {
            "flat": flat(step, state, wait=itemgetter(-1)),
            "jax.jit": lambda jit: Call(jit(step), (state,), wait=p40),
        },
    )


@workload("W12", "wrapping a function")
def wrapping() -> Case:
    """Build the wrapping itself, of one and the same function again and again."""

    def double(x: jax.Array) -> jax.Array:
        return 2 * x

    def call(jit: Function) -> Call:
        return Call(jit, (double,))

    x = jnp.arange(4.0)
    return Case(
        call,
        {"jax.jit": call},
        baseline="jax.jit",
        finish=lambda wrapped: wrapped(x),
    )


@workload("W13", "first call of a new function")
def first_call() -> Case:
    """Build the wrapping, tracing, compiling and running of a function made anew."""
    x = jnp.arange(4.0)

    def call(jit: Wrapper) -> Call:
        def make_and_call() -> jax.Array:
            def scale(x: jax.Array, y: float) -> jax.Array:
                return y * x

            return jit(scale)(x, 2.0)

        return Call(make_and_call, ())

    return Case(call, {"jax.jit": call}, baseline="jax.jit")


def _configs(count: int) -> Case:
    """Build calls with `count` configs in turn, which differ in what comes last."""
    configs = [config_of(28) for _ in range(count)]
    for i, config in enumerate(configs):
        config["layers"][-1]["dropout"] = 0.1 * i
    x = jnp.arange(4.0)
    calls = [(config, x) for config in configs]
    return switching(configured, calls, range(count), count_nodes(configs[0]))


@workload("W14a", "config of 435 static nodes")
def one_config() -> Case:
    """Build what W14b is to be compared with: the same with one specialization."""
    return _configs(1)


@workload("W14b", "two configs of 435 static nodes in turn")
def two_configs() -> Case:
    """Build calls of two specializations that are alike up to the last node."""
    return _configs(2)


def _last_of(sequence: Any, x: jax.Array) -> jax.Array:
    """Use the end of a long sequence."""
    return x + sequence[-1]


def _lists(count: int) -> Case:
    """Build calls with `count` lists in turn, which differ in the last item."""
    x = jnp.arange(4.0)
    calls = [([*range(1000, 1999), i], x) for i in range(count)]
    return switching(_last_of, calls, range(count), nodes=1000)


def _arrays(count: int) -> Case:
    """Build calls with `count` static arrays in turn, which differ in the last item."""
    x = jnp.arange(4.0)
    calls = [(np.zeros(10 * 2**18, np.float32), x) for _ in range(count)]
    for i, (array, _) in enumerate(calls):
        array[-1] = i
    return switching(_last_of, calls, range(count))


@workload("W15a", "list of 1,000 static ints")
def one_list() -> Case:
    """Build what W15b is to be compared with: the same with one specialization."""
    return _lists(1)


@workload("W15b", "two lists of 1,000 static ints in turn")
def two_lists() -> Case:
    """Build calls of two specializations that are alike up to the last item."""
    return _lists(2)


@workload("W15c", "static numpy array of 10 MB")
def one_array() -> Case:
    """Build what W15d is to be compared with: the same with one specialization."""
    return _arrays(1)


@workload("W15d", "two static numpy arrays of 10 MB in turn")
def two_arrays() -> Case:
    """Build calls of two specializations that are alike up to the last bytes."""
    return _arrays(2)


@workload("W16", "30 dicts with a list and a tuple each, in and out")
def nested_containers() -> Case:
    """Build a step whose result has as many containers as its arguments."""
    records = [
        {"values": [jnp.full(4, float(i)), i], "range": (0.0, 1.0 + i)}
        for i in range(30)
    ]

    def step(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "values": [record["range"][1] * record["values"][0], i],
                "range": record["range"],
            }
            for i, record in enumerate(records)
        ]

    def last(result: list[dict[str, Any]]) -> jax.Array:
        return result[-1]["values"][0]

    return Case(
        lambda jit: Call(jit(step), (records,), wait=last),
        {"flat": flat(step, records, wait=itemgetter(-1))},
        nodes=count_nodes(records),
    )


@workload("W17", "Flax NNX module with 2,000 Variables")
def large_nnx_module() -> Case:
    """Build a call with as many Variables as a large model has."""
    from flax import nnx

    class Neuron(nnx.Module):
        def __init__(self, i: int) -> None:
            self.weight = nnx.Param(jnp.array(float(i)))
            self.bias = nnx.Param(jnp.array(0.5))

    class Layer(nnx.Module):
        def __init__(self) -> None:
            self.neurons = nnx.List([Neuron(i) for i in range(1000)])

    def forward(layer: Layer, x: jax.Array) -> jax.Array:
        weights = jnp.stack([neuron.weight[...] for neuron in layer.neurons])
        biases = jnp.stack([neuron.bias[...] for neuron in layer.neurons])
        return jnp.vdot(weights, x) + biases

    layer, x = Layer(), jnp.ones(1000)
    graphdef, state = nnx.split(layer)

    def forward_split(graphdef: Any, state: Any, x: jax.Array) -> jax.Array:
        return forward(nnx.merge(graphdef, state), x)

    def wait(result: jax.Array) -> jax.Array:
        return result

    return Case(
        lambda jit: Call(jit(forward), (layer, x), wait=wait),
        {
            "flat": flat(forward, layer, x, wait=wait),
            "jax.jit": lambda jit: Call(
                jit(forward_split), (graphdef, state, x), "split, merge", wait=wait
            ),
            "jax.jit-simple": lambda jit: Call(
                jit(forward), (layer, x), "module as a pytree", wait=wait
            ),
            "nnx.jit": lambda jit: Call(jit(forward), (nnx.clone(layer), x), wait=wait),
        },
    )
