"""What holds on several devices. `test_devices.py` runs this in a process of its own.

Every comparison is with ``jax.jit`` of flat arrays: values, dtypes, shardings, and
whether an array is committed to them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from kinds import Data, Plain

import autojit


def test_there_are_eight_devices():
    assert len(jax.devices()) == 8


@pytest.fixture
def mesh():
    return jax.make_mesh((4, 2), ("i", "j"), axis_types=(AxisType.Auto,) * 2)


@pytest.fixture
def explicit():
    return jax.make_mesh((4, 2), ("i", "j"), axis_types=(AxisType.Explicit,) * 2)


def put(array, mesh, *spec):
    return jax.device_put(array, NamedSharding(mesh, P(*spec)))


def matrix(rows=8, columns=4):
    return jnp.arange(float(rows * columns)).reshape(rows, columns) / 10


def same_arrays(ours, theirs):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert a.sharding == b.sharding
        assert a.committed == b.committed
        assert [s.device for s in a.addressable_shards] == [
            s.device for s in b.addressable_shards
        ]
        np.testing.assert_array_equal(a, b)


def same_error(ours, theirs, error_type):
    with pytest.raises(error_type) as expected:
        theirs()
    with pytest.raises(error_type) as raised:
        ours()
    assert type(raised.value) is type(expected.value)


# One function of objects and the same of flat arrays.


def step(box, name, scale):
    w, x = box.layers["w"], box.x
    y = jnp.tanh(w @ x) * scale
    return Data({name: y, "t": y.T}, [y.sum(), w + 1, (x, scale)])


def flat_step(w, x):
    y = jnp.tanh(w @ x) * 2.0
    return y, y.T, y.sum(), w + 1, x


def arrays_of(data):
    total, more, (x, _) = data.b
    return data.a["y"], data.a["t"], total, more, x


def call_both(w, x):
    # An untouched array is the one that came in, wherever it is.
    forwarded = autojit.jit(step)(Plain(layers={"w": w}, x=x), "y", 2.0)
    assert forwarded.b[2][0] is x
    expected = jax.jit(flat_step)(w, x)
    same_arrays(arrays_of(forwarded)[:-1], expected[:-1])
    ours = autojit.jax_autojit(step)(Plain(layers={"w": w}, x=x), "y", 2.0)
    assert type(ours.b[2][1]) is float
    return arrays_of(ours), expected


SPECS = [
    ((), ()),
    (("i",), ()),
    (("i", "j"), ("j",)),
    ((None, "j"), ("j", None)),
    ((("i", "j"),), (None, "i")),
]


@pytest.mark.parametrize(("of_w", "of_x"), SPECS)
def test_results_have_the_sharding_that_jax_gives_them(mesh, of_w, of_x):
    w, x = put(matrix(), mesh, *of_w), put(matrix(4, 4), mesh, *of_x)
    same_arrays(*call_both(w, x))


@pytest.mark.parametrize(("of_w", "of_x"), [SPECS[0], SPECS[1]])
def test_explicit_shardings(explicit, of_w, of_x):
    w, x = put(matrix(), explicit, *of_w), put(matrix(4, 4), explicit, *of_x)
    same_arrays(*call_both(w, x))


def test_one_sharded_and_one_uncommitted_argument(mesh):
    same_arrays(*call_both(put(matrix(), mesh, "i"), matrix(4, 4)))


def test_single_devices(mesh):
    for device in jax.devices()[::3]:
        arrays = jax.device_put((matrix(), matrix(4, 4)), device)
        ours, theirs = call_both(*arrays)
        same_arrays(ours, theirs)
        assert ours[0].devices() == {device}


def test_arguments_on_different_devices_are_refused(mesh):
    w = jax.device_put(matrix(), jax.devices()[1])
    x = jax.device_put(matrix(4, 4), jax.devices()[2])
    f = autojit.jit(lambda *args: step(*args))

    def ours():
        return f(Plain(layers={"w": w}, x=x), "y", 2.0)

    same_error(ours, lambda: jax.jit(flat_step)(w, x), ValueError)
    assert f.cache_info().currsize == 0
    moved = jax.device_put(x, jax.devices()[1])
    result = f(Plain(layers={"w": w}, x=moved), "y", 2.0)
    same_arrays(arrays_of(result), jax.jit(flat_step)(w, moved))
    assert f.cache_info().currsize == 1


def test_unused_and_untouched_arguments_on_other_devices():
    """What `jax.jit` says of devices does not depend on what comes back untouched."""
    a, b = (jax.device_put(matrix(), d) for d in jax.devices()[:2])
    for keep_unused in (False, True):
        theirs = jax.jit(lambda a, b: a + 1, keep_unused=keep_unused)
        ours = autojit.jit(lambda box: box.a + 1, keep_unused=keep_unused)
        try:
            expected = theirs(a, b)
        except ValueError:
            with pytest.raises(ValueError, match="device"):
                ours(Data(a, b))
        else:
            same_arrays(ours(Data(a, b)), expected)


def test_retraced_for_a_new_sharding_exactly_when_jax_does(mesh, explicit):
    traces = []

    def flat(x):
        traces.append(1)
        return x * 2

    theirs = jax.jit(flat)
    ours = autojit.jit(lambda box, name: {name: box.a * 2})
    placements = [
        matrix(),
        jax.device_put(matrix(), jax.devices()[3]),
        *(put(matrix(), mesh, *spec) for spec in ((), ("i",), ("i", "j"))),
        *(put(matrix(), explicit, *spec) for spec in ((), ("i",), ("i", "j"))),
    ]
    for _ in range(2):
        for x in placements:
            same_arrays(ours(Data(x), "y")["y"], theirs(x))
            assert ours.cache_info().traces == len(traces)
    assert ours.cache_info().currsize == 1


def test_an_untouched_sharded_array_comes_back_as_it_is(mesh):
    x = put(matrix(), mesh, "i", "j")
    result = autojit.jit(lambda box: [box, box.a * 2])(Data(x))
    assert result[0].a is x
    same_arrays(result[1], x * 2)
    result = autojit.jax_autojit(lambda box: box)(Data(x))
    assert result.a is not x
    same_arrays(result.a, jax.jit(lambda x: x)(x))


# Shardings, meshes and specs as static arguments.


def test_a_named_sharding_is_static(mesh):
    @autojit.jit
    def place(box, sharding):
        return lax.with_sharding_constraint(box.a * 2, sharding)

    x = put(matrix(), mesh)
    for spec in (("i",), ("i", "j"), (None, "j"), ()):
        for _ in range(2):
            sharding = NamedSharding(mesh, P(*spec))
            expected = jax.jit(
                lambda x, sharding: lax.with_sharding_constraint(x * 2, sharding),
                static_argnums=1,
            )(x, sharding)
            same_arrays(place(Data(x), sharding), expected)
    assert place.cache_info()[:3] == (4, 4, 4)


def test_an_equal_mesh_made_again_hits(mesh):
    @autojit.jit
    def place(x, mesh, spec):
        return lax.with_sharding_constraint(x * 2, NamedSharding(mesh, spec))

    devices = np.array(jax.devices())
    x = matrix()
    for _ in range(3):
        y = place(x, Mesh(devices.reshape(4, 2), ("i", "j")), P("i"))
        assert y.sharding.spec == P("i")
    assert place.cache_info().traces == 1
    y = place(x, Mesh(devices.reshape(2, 4), ("i", "j")), P("i"))
    assert y.sharding.shard_shape(y.shape) == (4, 4)
    y = place(x, Mesh(devices[::-1].reshape(4, 2), ("i", "j")), P("i"))
    assert y.addressable_shards[0].index == (slice(0, 2), slice(None))
    assert {s.device.id for s in y.addressable_shards if s.index[0].start == 0} == {
        7,
        6,
    }
    place(x, Mesh(devices.reshape(4, 2), ("i", "j")), P(None, "j"))
    assert place.cache_info().traces == 4


def test_shardings_in_objects_come_back(mesh):
    sharding = NamedSharding(mesh, P("i"))
    spec = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=sharding)

    @autojit.jit
    def f(x, specs):
        assert specs["a"].sharding == sharding
        return {"x": lax.with_sharding_constraint(x, specs["a"].sharding)} | specs

    for _ in range(2):
        result = f(matrix(), {"a": spec, "mesh": mesh, "d": jax.devices()[1]})
        assert result["x"].sharding == sharding
        assert result["a"] == spec
        assert result["mesh"] == mesh
        assert result["d"] is jax.devices()[1]
    assert f.cache_info().traces == 1


def test_a_device_is_static():
    @autojit.jit
    def f(x, device):
        return jax.device_put(x * 2, device)

    def theirs(x, device):
        return jax.device_put(x * 2, device)

    for device in jax.devices()[:2]:
        expected = jax.jit(theirs, static_argnums=1)(matrix(), device)
        same_arrays(f(matrix(), device), expected)
    assert f.cache_info().traces == 2


# shard_map.


def per_shard(w, x, scale):
    return lax.psum((w * x.sum()) * scale, "i") + lax.axis_index("j")


def mapped(f, mesh):
    return jax.shard_map(
        f, mesh=mesh, in_specs=(P("i", "j"), P("i")), out_specs=P(None, "j")
    )


def test_shard_map_of_a_dispatcher_and_around_it(mesh):
    w, x = put(matrix(), mesh, "i", "j"), put(matrix(), mesh, "i")
    expected = jax.jit(mapped(lambda w, x: per_shard(w, x, 2.0), mesh))(w, x)

    inner = autojit.jit(lambda box, scale: Data(per_shard(box.w, box.x, scale), scale))

    def of_dispatcher(w, x):
        return inner(Plain(w=w, x=x), 2.0).a

    np.testing.assert_array_equal(mapped(of_dispatcher, mesh)(w, x), expected)
    same_arrays(jax.jit(mapped(of_dispatcher, mesh))(w, x), expected)

    @autojit.jit
    def around(box, mesh, scale):
        f = mapped(lambda w, x: per_shard(w, x, scale), mesh)
        return {"y": f(box.w, box.x), "scale": scale}

    @autojit.jit
    def both(box, mesh):
        return mapped(of_dispatcher, mesh)(box.w, box.x)

    for _ in range(2):
        same_arrays(around(Plain(w=w, x=x), mesh, 2.0)["y"], expected)
        same_arrays(both(Plain(w=w, x=x), mesh), expected)
    assert around.cache_info()[:3] == (1, 1, 1)


def test_grad_of_shard_map_of_a_dispatcher(mesh):
    w, x = put(matrix(), mesh, "i", "j"), put(matrix(), mesh, "i")
    inner = autojit.jit(lambda box, scale: per_shard(box.w, box.x, scale))

    def loss(per_shard):
        f = mapped(per_shard, mesh)
        return lambda w, x: (f(w, x) ** 2).sum()

    expected = jax.jit(jax.grad(loss(lambda w, x: per_shard(w, x, 2.0)), (0, 1)))(w, x)
    of_ours = loss(lambda w, x: inner(Plain(w=w, x=x), 2.0))
    same_arrays(jax.jit(jax.grad(of_ours, (0, 1)))(w, x), expected)
    outer = autojit.jit(lambda box: jax.grad(of_ours, (0, 1))(box.w, box.x))
    same_arrays(outer(Plain(w=w, x=x)), expected)


def test_vmap_with_an_spmd_axis(mesh):
    rows = put(matrix(8, 4), mesh, "i")
    spec = NamedSharding(mesh, P("j"))

    def f(row):
        return lax.with_sharding_constraint(row * 2, spec)

    dispatcher = autojit.jit(lambda box, spec: box.a * 0 + f(box.a))
    expected = jax.jit(jax.vmap(lambda a: a * 0 + f(a), spmd_axis_name="i"))(rows)
    ours = jax.vmap(lambda row: dispatcher(Data(row), spec), spmd_axis_name="i")
    same_arrays(jax.jit(ours)(rows), expected)


# Mesh contexts.


def test_a_mesh_context_gives_meaning_to_a_spec(mesh):
    def theirs(x):
        return lax.with_sharding_constraint(x * 2, P("i"))

    ours = autojit.jit(lambda box, spec: lax.with_sharding_constraint(box.a * 2, spec))
    x = matrix()
    same_error(lambda: ours(Data(x), P("i")), lambda: jax.jit(theirs)(x), RuntimeError)
    other = jax.make_mesh((2, 4), ("i", "j"), axis_types=(AxisType.Auto,) * 2)
    compiled = jax.jit(theirs)
    for context in (mesh, other, mesh):
        with jax.set_mesh(context):
            same_arrays(ours(Data(x), P("i")), compiled(x))
    same_error(lambda: ours(Data(x), P("i")), lambda: compiled(x), RuntimeError)
    with mesh:  # the older way
        same_arrays(ours(Data(x), P("i")), compiled(x))


def test_retraced_for_a_new_mesh_exactly_when_jax_does(mesh, explicit):
    traces = []

    def flat(x):
        traces.append(1)
        return x * 2

    theirs, ours = jax.jit(flat), autojit.jit(lambda box: box.a * 2)
    x = matrix()
    for context in (None, mesh, explicit, mesh, explicit, None):
        if context is None:
            same_arrays(ours(Data(x)), theirs(x))
        else:
            with jax.set_mesh(context):
                same_arrays(ours(Data(x)), theirs(x))
        assert ours.cache_info().traces == len(traces)
    assert ours.cache_info().currsize == 1


def test_the_function_sees_the_mesh_of_the_context(explicit):
    @autojit.jit
    def f(box):
        return box.a, jax.sharding.get_abstract_mesh().axis_names

    x = matrix()
    with jax.set_mesh(explicit):
        assert f(Data(x))[1] == ("i", "j")
    assert f(Data(x))[1] == ()
    with jax.set_mesh(explicit):
        assert f(Data(x))[1] == ("i", "j")


def test_shard_map_takes_the_mesh_of_the_context(mesh):
    def per(x):
        return lax.psum(x, "i")

    ours = autojit.jit(
        lambda box, i: jax.shard_map(per, in_specs=P(i), out_specs=P())(box.a)
    )
    theirs = jax.jit(lambda x: jax.shard_map(per, in_specs=P("i"), out_specs=P())(x))
    with jax.set_mesh(mesh):
        x = put(matrix(), mesh, "i")
        same_arrays(ours(Data(x), "i"), theirs(x))


# Sharding in types.


def test_the_function_sees_explicit_shardings(explicit):
    seen = []

    @autojit.jit
    def f(box):
        seen.append(jax.typeof(box.a).sharding.spec)
        return Plain(y=jnp.sin(box.a) @ box.b)

    a = put(matrix(8, 4), explicit, "i", None)
    b = put(matrix(4, 8), explicit, None, "j")
    with jax.set_mesh(explicit):
        expected = jax.jit(lambda a, b: jnp.sin(a) @ b)(a, b)
        same_arrays(f(Data(a, b)).y, expected)
    assert seen == [P("i", None)]
    assert f(Data(a, b)).y.sharding.spec == P("i", "j")


def test_ambiguous_explicit_shardings_are_refused(explicit):
    a = put(matrix(8, 8), explicit, "i", None)
    b = put(matrix(8, 8), explicit, None, "i")
    ours, theirs = autojit.jit(lambda box: box.a + box.b), jax.jit(lambda a, b: a + b)
    same_error(lambda: ours(Data(a, b)), lambda: theirs(a, b), Exception)
    assert ours.cache_info().currsize == 0


@pytest.mark.parametrize("transform", ["grad", "vmap", "scan", "jit"])
def test_explicit_shardings_under_transformations(explicit, transform):
    transforms = {
        "grad": lambda f: jax.grad(lambda x: f(x).sum()),
        "vmap": jax.vmap,
        "scan": lambda f: lambda x: lax.scan(lambda c, row: (c, f(row)), 0.0, x)[1],
        "jit": jax.jit,
    }
    apply = transforms[transform]
    dispatcher = autojit.jit(lambda box, n: {"y": jnp.tanh(box.a) * n})
    with jax.set_mesh(explicit):
        x = put(matrix(), explicit, None, "j")
        expected = jax.jit(apply(lambda x: jnp.tanh(x) * 2))(x)
        ours = apply(lambda x: dispatcher(Data(x), 2)["y"])
        same_arrays(jax.jit(ours)(x), expected)
        same_arrays(autojit.jit(ours)(x), expected)


# Devices in JAX's configuration.


def test_the_default_device(mesh):
    traces = []

    def flat(x):
        traces.append(1)
        return x + jnp.ones(4)

    theirs = jax.jit(flat)
    ours = autojit.jit(lambda box, name: {name: box.a + jnp.ones(4)})
    constant = autojit.jit(lambda n: jnp.full(3, n))
    x = np.arange(4.0, dtype=np.float32)
    for device in (*jax.devices()[:3], jax.devices()[1]):
        with jax.default_device(device):
            array = jnp.asarray(x)
            same_arrays(ours(Data(array), "y")["y"], theirs(array))
            assert ours.cache_info().traces == len(traces)
            same_arrays(constant(1.0), jax.jit(lambda: jnp.full(3, 1.0))())
            assert constant(1.0).devices() == {device}


def test_transfers_between_devices_are_guarded():
    x = jax.device_put(matrix(), jax.devices()[0])
    sharding = SingleDeviceSharding(jax.devices()[1])
    ours = autojit.jit(lambda box, s: jax.device_put(box.a, s) + 1)
    theirs = jax.jit(lambda x: jax.device_put(x, sharding) + 1)
    outcomes = []
    for call in (lambda: ours(Data(x), sharding), lambda: theirs(x)):
        with jax.transfer_guard_device_to_device("disallow"):
            try:
                outcomes.append(call().sharding)
            except Exception as error:
                outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


def test_keys_and_integers_may_be_sharded(mesh):
    keys = jax.device_put(
        jax.random.split(jax.random.key(0), 8), NamedSharding(mesh, P("i"))
    )

    def draw(keys):
        return jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)

    ours = autojit.jit(lambda box: Plain(y=draw(box.a), keys=box.a))(Data(keys))
    same_arrays(ours.y, jax.jit(draw)(keys))
    assert ours.keys.sharding == keys.sharding
    assert (jax.random.key_data(ours.keys) == jax.random.key_data(keys)).all()


# Donation.


def donating(**options):
    return autojit.jit(
        lambda state, n: Plain(w=state["box"].w * n, name=state["name"]), **options
    )


@pytest.mark.parametrize(
    "options", [{"donate_argnums": 0}, {"donate_argnames": "state"}]
)
def test_sharded_arrays_can_be_donated(mesh, options):
    def new(spec):
        return put(matrix(), mesh, *spec)

    ours, theirs = donating(**options), jax.jit(lambda w: w * 2, donate_argnums=0)
    for spec in (("i",), ("i", "j"), ()):
        mine, other = new(spec), new(spec)
        result = ours({"box": Plain(w=mine), "name": "n"}, 2)
        same_arrays(result.w, theirs(other))
        assert mine.is_deleted()
        assert other.is_deleted()


def test_a_donated_sharded_array_is_not_handed_back(mesh):
    x = put(matrix(), mesh, "i")
    f = autojit.jit(lambda box: [box.a, box.b + 1], donate_argnums=0)
    same, _ = f(Data(x, put(matrix(), mesh, "j")))
    assert same is not x
    assert same.sharding == NamedSharding(mesh, P("i"))
    np.testing.assert_array_equal(same, matrix())


def test_a_training_loop_on_a_mesh(mesh):
    def loss(params, batch):
        return ((jnp.tanh(batch @ params["w"]) + params["b"] - 1) ** 2).mean()

    def update(params, batch, rate):
        gradients = jax.grad(loss)(params, batch)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradients)

    def start():
        return {"b": put(jnp.zeros(4), mesh, "j"), "w": put(matrix(4, 4), mesh, "j")}

    ours, theirs = autojit.jit(update), jax.jit(functools.partial(update, rate=0.1))
    batch = put(matrix(8, 4), mesh, "i")
    mine, other = start(), start()
    for _ in range(3):
        mine, other = ours(mine, batch, rate=0.1), theirs(other, batch)
        same_arrays(mine, other)
    assert ours.cache_info().misses == 1


@pytest.mark.parametrize("jit", [autojit.jit, autojit.jax_autojit])
def test_arrays_on_incompatible_devices_are_named(jit):
    class Model:
        def __init__(self, w):
            self.w = w

        def __call__(self, c):
            return self.w + c["x"][0]

    one, other = (jax.device_put(jnp.ones(3), device) for device in jax.devices()[:2])
    model = Model(one)
    f = jit(model)
    for warm in False, True:
        if warm:
            f({"x": [one]})
        with pytest.raises(ValueError, match="incompatible devices") as caught:
            f({"x": [other]})
        assert "leaves[0] of " in str(caught.value)
        assert [note for note in caught.value.__notes__ if "JAX" not in note] == [
            "leaves[0] is fun.w",
            "leaves[1] is args[0]['x'][0]",
        ]
