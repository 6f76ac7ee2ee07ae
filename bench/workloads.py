"""The workloads: what users call, with small arrays, so that dispatch is timed.

To add one, write a function that builds a `Case`. Its `setup` serves all peers that
take the arguments as they are; `special` serves those that need help, and the floor.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp

from case import Call, Case, Function, Setup, Workload, arrays_in

WORKLOADS: dict[str, Workload] = {}


def workload(
    name: str, title: str
) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Register the decorated function as the `Workload.build` of a new workload."""

    def register(build: Callable[[], Case]) -> Callable[[], Case]:
        WORKLOADS[name] = Workload(name, title, build)
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


def _config() -> dict[str, Any]:
    """Return a nested config of 1,500 nodes, as a large model has."""
    layers = [
        {
            "name": f"encoder.layer.{i}",
            "kind": "attention" if i % 3 else "convolution",
            "units": 1000 + i,
            "dropout": 0.1 + 0.001 * i,
            "residual": i % 2 == 0,
            "shape": (64, 512),
        }
        for i in range(99)
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


def _configured(config: dict[str, Any], x: jax.Array) -> jax.Array:
    """Use a large config a little."""
    dropout: float = config["layers"][-1]["dropout"]
    epsilon: float = config["epsilon"]
    return dropout * x + epsilon


@workload("W7a", "config of 1,500 static nodes, the same objects")
def same_config() -> Case:
    """Build a call with a config that is the very object of the calls before."""
    config, x = _config(), jnp.arange(4.0)
    return Case(
        lambda jit: Call(jit(_configured), (config, x)),
        {"flat": flat(_configured, config, x)},
        nodes=count_nodes(config),
    )


@workload("W7b", "config of 1,500 static nodes, an equal copy")
def equal_config() -> Case:
    """Build a call with an equal config that shares no string, float or container.

    The function was compiled for the first config, so a peer that keeps its objects
    does not find them again. ``copy.deepcopy`` would keep strings and floats.
    """
    config, x = _config(), jnp.arange(4.0)
    copy = pickle.loads(pickle.dumps(config))
    return Case(
        lambda jit: Call(jit(_configured), (copy, x), first_args=(config, x)),
        {"flat": flat(_configured, config, x)},
        nodes=count_nodes(config),
    )


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
