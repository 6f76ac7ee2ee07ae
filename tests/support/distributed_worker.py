"""Build the same programs as another process. `test_distributed.py` runs this.

``python distributed_worker.py OUTPUT RANK [ADDRESS]``: with an address, as one of two
processes of ``jax.distributed``. For each case, the directory OUTPUT/RANK gets one that
holds the results and each module that JAX compiled.
"""

import contextlib
import functools
import random
import sys
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from kinds import Color, Config, Data, Plain, Point, Slots, add, double

import autojit

RANK = int(sys.argv[2])
OUTPUT = Path(sys.argv[1]) / str(RANK)
ADDRESS = sys.argv[3] if len(sys.argv) > 3 else None
if ADDRESS:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(ADDRESS, 2, RANK)

# So that no address is the same in both processes.
JUNK = [bytearray(random.SystemRandom().randrange(16, 4096)) for _ in range(5000)]
del JUNK[:: random.SystemRandom().randrange(2, 7)]


class Named:
    """An element of sets that hashes by its name, and holds an array."""

    def __init__(self, name, array):
        self.name = name
        self.array = array

    def __eq__(self, other):
        return type(other) is Named and other.name == self.name

    def __hash__(self):
        return hash(self.name)


class ByIdentity:
    """An element of sets that hashes by its address, and holds an array."""

    def __init__(self, name, array):
        self.name = name
        self.array = array


if ADDRESS:
    MESH = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,))
    REPLICATED = NamedSharding(MESH, P())

    def array(*shape):
        value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 10
        return jax.make_array_from_callback(shape, REPLICATED, lambda i: value[i])

else:

    def array(*shape):
        return jnp.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 10


def show(result):
    leaves = [np.asarray(a.addressable_data(0)).tolist() for a in result]
    print(leaves)


NAMES = ["weight", "bias", "scale", "shift", "gain", "mean", "var"]
CASES = {}


def case(fun):
    CASES[fun.__name__] = fun
    return fun


@case
def strings_and_dicts():
    @autojit.jit
    def f(params, names, options):
        total = 0
        for name in names:
            total = total + params[name].sum() * options[name]
        return {name: total * i for i, name in enumerate(names)}

    params = {name: array(i + 1) for i, name in enumerate(NAMES)}
    for names in (NAMES, NAMES[::-1], NAMES[::2]):
        options = {name: i + 0.5 for i, name in enumerate(names)}
        show(f(params, names, options).values())


@case
def sets_of_statics():
    @autojit.jit
    def f(x, names, mixed, frozen):
        assert (1, "a") in mixed
        assert frozenset({"u", "v"}) in frozen
        for name in sorted(names):
            x = x * len(name) + len(mixed)
        return x, names, mixed

    mixed = {1, "a", 2.5, None, Color.RED, (1, "a"), b"bytes", double, Plain}
    frozen = frozenset({frozenset({"u", "v"}), "w", ("x", frozenset({1, "y"}))})
    for names in (set(NAMES), set(NAMES[:3])):
        show([f(array(3), names, mixed, frozen)[0]])


@case
def a_set_of_instances_that_hash_by_name():
    @autojit.jit
    def f(elements):
        for element in sorted(elements, key=lambda e: e.name):
            element.array = element.array.sum() + element.array
        return elements

    elements = {Named(name, array(i + 1)) for i, name in enumerate(NAMES)}
    result = sorted(f(elements), key=lambda e: e.name)
    show([e.array for e in result])


@case
def a_set_of_instances_that_hash_by_address():
    @autojit.jit
    def f(elements):
        return sum(e.array.sum() for e in sorted(elements, key=lambda e: e.name))

    elements = {ByIdentity(name, array(i + 1)) for i, name in enumerate(NAMES)}
    show([f(elements)])


@case
def a_set_of_tuples_with_arrays_in_them():
    @autojit.jit
    def f(elements):
        ordered = sorted(elements, key=lambda pair: pair[0])
        return {name: element.array * 2 for name, element in ordered}

    elements = frozenset(
        (name, ByIdentity(name, array(i + 1))) for i, name in enumerate(NAMES)
    )
    result = f(elements)
    show([result[name] for name in sorted(NAMES)])


@case
def a_set_in_a_result():
    @autojit.jit
    def f(x):
        return {Named(name, x[: i + 1] * 2) for i, name in enumerate(NAMES)}

    result = sorted(f(array(8)), key=lambda e: e.name)
    show([e.array for e in result])


@case
def a_set_of_partials():
    @autojit.jit
    def f(partials):
        return [p() for p in sorted(partials, key=lambda p: p.keywords["n"])]

    def scale(x, n):
        return x * n

    partials = {
        functools.partial(scale, array(i + 1), n=i + 1) for i in range(len(NAMES))
    }
    show(f(partials))


@case
def functions():
    @autojit.jit
    def f(x, first, second, table):
        return table["last"](second(first(x), x)), first

    def scaled(n):
        return lambda x: x * n

    for n in (2, 3, 2):
        table = {"last": scaled(n), "unused": jnp.sin, "ufunc": jnp.add}
        show([f(array(2), double, add, table)[0]])


@case
def instances():
    @autojit.jit
    def f(model, config, point, x):
        y = getattr(jnp, config.activation)(model.layers["w"] @ x) * config.scale
        return Plain(y=y + model.b.a, config=config, point=point)

    for activation in ("tanh", "sin"):
        model = Plain(layers={"w": array(3, 2)}, b=Slots(array(3), "bias"))
        config = Config(activation=activation, options={"a": {"x", "y"}, "b": None})
        result = f(model, config, Point("p", Color.BLUE), array(2))
        show([result.y])


@case
def objects_that_go_by_identity():
    sentinel = object()

    @autojit.jit
    def f(x, marker, others):
        return x * (2 if marker is sentinel else 3) + len(others)

    others = [object(), type("Local", (), {}), double, len, sys]
    show([f(array(2), sentinel, others)])
    show([f(array(2), object(), others)])


@case
def a_dict_with_hashed_keys():
    @autojit.jit
    def f(table):
        return {key: value * len(key[0]) for key, value in table.items()}

    table = {(name, Color.RED, i): array(i + 1) for i, name in enumerate(NAMES)}
    show(f(table).values())


@case
def many_specializations_of_which_some_are_dropped():
    @functools.partial(autojit.jit, maxsize=3)
    def f(x, name, options):
        return x * len(name) + len(options)

    for i in (0, 1, 2, 3, 0, 4, 1, 0, 3, 2, 6, 5, 0):
        show([f(array(2), NAMES[i], {NAMES[i], "option"})])


@case
def nested_dispatchers_and_transformations():
    @autojit.jit
    def inner(box, names):
        return sum(jnp.tanh(box[name].array).sum() for name in sorted(names))

    def loss(arrays):
        box = {n: Named(n, a) for n, a in zip(NAMES, arrays, strict=True)}
        return inner(box, set(NAMES))

    @autojit.jit
    def outer(arrays, names):
        gradients = jax.grad(loss)(arrays)
        mapped = lax.map(lambda a: a * len(names), gradients[-1])
        return [mapped, *gradients]

    arrays = [array(i + 1) for i in range(len(NAMES))]
    show(outer(arrays, frozenset(NAMES)))


if ADDRESS:

    @case
    def collectives():
        @autojit.jit
        def f(box, mesh, axes):
            def per_shard(x):
                return lax.psum(x * (lax.axis_index("i") + 1), "i") * len(axes)

            y = jax.shard_map(per_shard, mesh=mesh, in_specs=P("i"), out_specs=P())
            return {"sum": y(box.a), "sharding": box.a.sum()}

        value = np.arange(4, dtype=np.float32)
        sharding = NamedSharding(MESH, P("i"))
        x = jax.make_array_from_callback((4,), sharding, lambda i: value[i])
        result = f(Data(x, "box"), MESH, {"i", "j", "k"})
        show([result["sum"], result["sharding"]])


def main():
    for name, fun in CASES.items():
        directory = OUTPUT / name
        directory.mkdir()
        jax.config.update("jax_dump_ir_to", str(directory / "modules"))
        with open(directory / "results", "w") as file, contextlib.redirect_stdout(file):
            try:
                fun()
            except Exception:
                traceback.print_exc(file=file)
    if ADDRESS:
        jax.distributed.shutdown()


main()
