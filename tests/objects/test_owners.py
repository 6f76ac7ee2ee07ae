"""What belongs to the caller: resources, and what is handed through whole."""

import copy
import functools
import gc
import gzip
import io
import multiprocessing.shared_memory
import operator
import os
import pickle
import shelve
import socket
import tempfile
import weakref
import zipfile

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import Plain, Reduced, with_attributes
from numpy.testing import assert_array_equal

import autojit


class Finalized:
    """Its class has `__del__`."""

    def __init__(self, log, **state):
        self.log = log
        self.__dict__.update(state)

    def __del__(self):
        self.log.append("closed")


class Slotted:
    __slots__ = ("__weakref__", "a", "log")

    def __init__(self, log, a):
        self.log = log
        self.a = a

    def __del__(self):
        self.log.append("closed")


class Reducing(Finalized):
    def __reduce__(self):
        return type(self), (self.log,), {"a": self.a}


def archive(path):
    np.savez(path.with_suffix(".npz"), a=np.ones(3))
    return np.load(path.with_suffix(".npz"))


def zip_file(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("name", "content")
    return zipfile.ZipFile(path)


def gzip_file(path):
    with gzip.open(path, "wb") as file:
        file.write(b"content")
    return gzip.open(path)


def shelf(path):
    made = shelve.open(path)
    made["key"] = "content"
    return made


# How to make one in a path, and whether it still works.
RESOURCES = {
    "temporary file": (
        lambda path: tempfile.NamedTemporaryFile(),
        lambda file: os.path.exists(file.name),
    ),
    "temporary directory": (
        lambda path: tempfile.TemporaryDirectory(),
        lambda directory: os.path.exists(directory.name),
    ),
    "spooled file": (
        lambda path: tempfile.SpooledTemporaryFile(),
        lambda file: not file.closed and file.write(b"a") == 1,
    ),
    "archive of numpy": (archive, lambda file: file["a"].sum() == 3),
    "zip file": (zip_file, lambda file: file.read("name") == b"content"),
    "gzip file": (gzip_file, lambda file: not file.closed and file.readable()),
    "shelf": (shelf, lambda made: made["key"] == "content"),
    "file": (lambda path: open(path, "w"), lambda file: not file.closed),
    "socket": (lambda path: socket.socket(), lambda sock: sock.fileno() >= 0),
    "shared memory": (
        lambda path: multiprocessing.shared_memory.SharedMemory(create=True, size=4),
        lambda memory: len(memory.buf) >= 4,
    ),
}


def close(resource):
    if isinstance(resource, tempfile.TemporaryDirectory):
        resource.cleanup()
    else:
        resource.close()
    if isinstance(resource, multiprocessing.shared_memory.SharedMemory):
        resource.unlink()


HOLD = {
    "argument": lambda obj: obj,
    "in a list": lambda obj: [obj, 1],
    "in an instance": lambda obj: Plain(inner=obj),
    "in a closure": lambda obj: lambda: obj,
}


@pytest.mark.parametrize("hold", HOLD.values(), ids=HOLD)
@pytest.mark.parametrize(("make", "works"), RESOURCES.values(), ids=RESOURCES)
def test_a_resource_is_the_callers_own(x, tmp_path, make, works, hold):
    obj = make(tmp_path / "resource")
    seen = []
    try:

        @autojit.jit
        def f(held, y):
            seen.append(held)
            return y + 1, held

        for _ in range(3):
            assert_array_equal(f(hold(obj), x)[0], x + 1)
        seen.clear()
        f.clear_cache()
        gc.collect()
        assert works(obj)
    finally:
        close(obj)


@pytest.mark.parametrize("kind", [Finalized, Reducing])
def test_no_copy_of_an_owner_is_made(x, kind):
    log = []
    obj = kind(log, a=2.0)
    seen = []

    @autojit.jit
    def f(obj, y):
        seen.append(obj)
        return y * obj.a, obj

    for _ in range(3):
        y, same = f(obj, x)
        assert_array_equal(y, 2 * x)
        assert same is obj
    assert len(seen) == 1
    assert seen[0] is obj
    seen.clear()
    f.clear_cache()
    gc.collect()
    assert log == []
    del obj, same
    gc.collect()
    assert log == ["closed"]


def test_what_an_owner_holds_is_noticed_when_it_changes(x):
    obj = Finalized([], a=2.0, inner={"b": [1]})
    f = autojit.jit(lambda obj, y: y * obj.a * obj.inner["b"][0])
    for a, b in (2.0, 1), (3.0, 1), (3.0, 2), (3.0, 1):
        obj.a, obj.inner["b"][0] = a, b
        assert_array_equal(f(obj, x), a * b * x)
    assert f.cache_info().traces == 3


def test_what_a_slot_of_an_owner_holds_is_noticed(x):
    obj = Slotted([], 2.0)
    f = autojit.jit(lambda obj, y: y * obj.a)
    for a in (2.0, 3.0):
        obj.a = a
        assert_array_equal(f(obj, x), obj.a * x)


def test_arrays_of_an_owner_are_constants_and_never_stale(x):
    obj = Finalized([], w=x)
    f = autojit.jit(lambda obj, y: obj.w * y)
    for w in (x, x + 1):
        obj.w = w
        for _ in range(2):
            assert_array_equal(f(obj, x), obj.w * x)
    assert f.cache_info().traces == 2
    other = Finalized([], w=x + 2)
    assert_array_equal(f(other, x), other.w * x)


def test_arrays_beside_an_owner_are_traced(x):
    obj = Plain(inner=Finalized([]))
    f = autojit.jit(lambda obj: obj.w * 2)
    for w in (x, x + 1, x + 2):
        obj.w = w
        assert_array_equal(f(obj), 2 * obj.w)
    assert f.cache_info().traces == 1


def test_an_owner_made_by_the_function_is_carried_out(x):
    f = autojit.jit(lambda y: Finalized([], a=y + 1))
    for i in range(2):
        assert_array_equal(f(x + i).a, x + i + 1)


def test_an_owner_that_refers_to_itself(x):
    obj = Finalized([], a=1)
    obj.itself = obj
    obj.other = Finalized([], back=obj)
    f = autojit.jit(lambda obj, y: (y + obj.a, obj.itself is obj))
    for a in (1, 2, 2):
        obj.a = a
        y, itself = f(obj, x)
        assert itself
        assert_array_equal(y, x + obj.a)
    assert f.cache_info().traces == 2


def test_an_object_with_a_finalizer_is_handed_through(x):
    obj = Plain(scale=2.0)
    f = autojit.jit(lambda obj, y: (y * obj.scale, obj))
    assert f(obj, x)[1] is not obj
    log = []
    finalizer = weakref.finalize(obj, log.append, "closed")
    for scale in (2.0, 3.0, 3.0):
        obj.scale = scale
        y, same = f(obj, x)
        assert same is obj
        assert_array_equal(y, obj.scale * x)
    assert f.cache_info().traces == 3
    f.clear_cache()
    gc.collect()
    assert log == []
    assert finalizer.alive


def test_a_finalizer_of_an_object_with_a_reduction(x):
    obj = Reduced(2.0)
    f = autojit.jit(lambda obj, y: (y * obj.a, obj))
    assert f(obj, x)[1] is not obj
    finalizer = weakref.finalize(obj, int)
    assert f(obj, x)[1] is obj
    finalizer.detach()
    assert_array_equal(f(obj, x)[0], 2 * x)


def test_an_open_file_in_an_object_with_arrays(x, tmp_path):
    obj = Plain(w=x, log=open(tmp_path / "log", "w"))
    with obj.log:
        f = autojit.jit(lambda obj: (obj.w * 2, obj.log))
        for w in (x, x + 1, x + 2):
            obj.w = w
            y, log = f(obj)
            assert log is obj.log
            assert_array_equal(y, 2 * obj.w)
        assert f.cache_info().traces == 1
        obj.log.write("still open")


def test_bytes_in_memory_are_copied(x):
    stream = io.BytesIO(b"abc")
    f = autojit.jit(lambda stream, y: y + len(stream.read()))
    for _ in range(2):
        assert_array_equal(f(stream, x), x + 3)
    assert stream.read() == b"abc"


# --- reductions that do not reproduce the object ---


class Lossy:
    """Its reduction leaves out the unit."""

    def __init__(self, value, unit="m"):
        self.value = value
        self.unit = unit

    def __reduce__(self):
        return Lossy, (self.value,)


def metres(obj, y):
    return y * (1000 if obj.unit == "km" else 1) * obj.value


@pytest.mark.parametrize("first", ["km", "m"])
def test_a_reduction_to_another_value_is_noticed(x, first):
    f = autojit.jit(metres)
    for unit in (first, "km", "m", "km", "m"):
        assert_array_equal(f(Lossy(2, unit), x), metres(Lossy(2, unit), x))


def test_what_changes_in_an_object_that_is_not_reproduced(x):
    obj = Lossy(2, "km")
    f = autojit.jit(metres)
    states = (2, "km"), (3, "km"), (3, "m"), (2, "km"), (x, "km"), (x + 1, "km")
    for value, unit in states:
        obj.value, obj.unit = value, unit
        assert_array_equal(f(obj, x), metres(obj, x))


class Disguised:
    """It reduces to an object of another type."""

    def __init__(self, a):
        self.a = a

    def __reduce__(self):
        return dict, ({"a": self.a},)


def test_a_reduction_to_another_type_is_noticed(x):
    f = autojit.jit(lambda obj, y: (y + obj.a, obj))
    for a in (1, 2, x, x + 1):
        obj = Disguised(a)
        y, same = f(obj, x)
        assert same is obj
        assert_array_equal(y, x + a)


class Shifting:
    """Its state is in a slot, and it takes no weak references."""

    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a + 1

    def __reduce__(self):
        return Shifting, (self.a,)


def test_a_reduction_to_another_value_in_a_slot_is_noticed(x):
    f = autojit.jit(lambda objs, y: y + sum(obj.a for obj in objs))
    for _ in range(2):
        assert_array_equal(f([Shifting(i) for i in range(100)], x), x + 5050)


class Unrepeatable:
    """What its reduction makes cannot be reduced again."""

    def __init__(self, a, made=False):
        self.a = a
        self.made = made

    def __reduce__(self):
        if self.made:
            raise TypeError("not once more")
        return Unrepeatable, (self.a, True)


def test_a_reduction_that_cannot_be_repeated_is_noticed(x):
    f = autojit.jit(lambda obj, y: (y + obj.a, obj.made))
    assert f(Unrepeatable(1), x)[1] is False


class Cached:
    """It leaves out a cache, and makes an identity of its own: both on purpose."""

    def __init__(self, a):
        self.a = a
        self.token = object()

    def __reduce__(self):
        return Cached, (self.a,)


def test_what_a_reduction_leaves_out_on_purpose(x):
    f = autojit.jit(lambda obj: obj.a * 2)
    for i in range(3):
        obj = Cached(x + i)
        obj.cache = {"sum": jnp.sum(x)}
        assert_array_equal(f(obj), 2 * (x + i))
    assert f.cache_info().traces == 1


class Sized:
    """Its reduction passes on its size alone."""

    def __init__(self, size):
        self.size = size
        self.make(size)

    def __reduce__(self):
        return type(self), (self.size,)


class Forgetful(Sized):
    """Its reduction knows nothing of the weights that it was given since."""

    def make(self, size):
        self.w = jnp.zeros(size)
        self.table = np.zeros(size, np.float32)


@pytest.mark.parametrize("name", ["w", "table"])
def test_arrays_that_a_reduction_forgets_are_noticed(x, name):
    f = autojit.jit(lambda obj: getattr(obj, name) * 2)
    obj = Forgetful(3)
    for i in range(3):
        assert_array_equal(f(obj), 2 * getattr(obj, name))
        setattr(obj, name, getattr(obj, name) + i + 1)
    obj.table[:] = 7
    assert_array_equal(f(obj), 2 * getattr(obj, name))


def test_an_array_that_a_reduction_forgets_has_a_gradient(x):
    obj = Forgetful(3)

    def loss(w, obj):
        obj.w = w
        return jnp.sum(w * obj.w)

    f = autojit.jit(lambda obj: jnp.sum(obj.w**2))

    def outer(w):
        obj.w = w
        return f(obj)

    assert_array_equal(jax.grad(outer)(x), 2 * x)
    assert_array_equal(jax.grad(autojit.jit(loss))(x, obj), 2 * x)


@pytest.mark.parametrize("outer", [jax.jit, autojit.jit, jax.checkpoint])
def test_arrays_that_a_reduction_forgets_within_another_trace(x, outer):
    f = autojit.jit(lambda obj: jnp.sum(obj.w**2))

    def loss(w):
        obj = Forgetful(3)
        obj.w = w
        return f(obj)

    assert_array_equal(outer(loss)(x), jnp.sum(x**2))
    assert_array_equal(jax.grad(outer(loss))(x), 2 * x)
    last, _ = jax.lax.scan(lambda w, _: (w + 1, loss(w)), x, length=2)
    assert_array_equal(last, x + 2)


def test_arrays_that_a_reduction_forgets_in_a_result_are_an_error(x):
    @autojit.jit
    def step(obj, y):
        obj.w = obj.w + y
        return obj

    with pytest.raises(
        jax.errors.UnexpectedTracerError, match=r"result\.w is a traced"
    ):
        step(Forgetful(3), x)


class ForgetfulOfTwo(Sized):
    def make(self, size):
        self.a = jnp.zeros(size)
        self.b = jnp.ones(size)


def test_arrays_that_a_reduction_forgets_are_told_by_their_place(x):
    f = autojit.jit(lambda obj: obj.b - obj.a)
    obj = ForgetfulOfTwo(3)
    a, b = obj.a, obj.b
    for pair in (a, b), (a, b), (b, a), (a, a):
        obj.a, obj.b = pair
        assert_array_equal(f(obj), obj.b - obj.a)


CHANGES = {
    "value": lambda w: w + 1e-6,
    "shape": lambda w: w[:1],
    "dtype": lambda w: w.astype("int32"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_small_changes_of_arrays_that_a_reduction_forgets_are_noticed(change):
    f = autojit.jit(lambda obj: obj.w * 1)
    obj = Forgetful(3)
    for _ in range(3):
        y = f(obj)
        assert_array_equal(y, obj.w)
        assert (y.shape, y.dtype) == (obj.w.shape, obj.w.dtype)
        obj.w = change(obj.w)


class Nested(Sized):
    def make(self, size):
        self.held = {"ws": [jnp.zeros(size), 1.0]}


def test_arrays_in_containers_that_a_reduction_forgets_are_noticed(x):
    f = autojit.jit(lambda obj: obj.held["ws"][0] + obj.held["ws"][1])
    obj = Nested(3)
    assert_array_equal(f(obj), jnp.ones(3))
    obj.held["ws"][0] = x
    assert_array_equal(f(obj), x + 1)
    obj.held["ws"][1] = 3.0
    assert_array_equal(f(obj), x + 3)


class Holding(Sized):
    """What it holds is no plain data, and its reduction knows nothing of it."""

    def make(self, size):
        self.used = False
        self.inner = Plain(scale=1.0)


def test_what_is_in_an_object_that_is_not_reproduced_is_noticed(x):
    f = autojit.jit(lambda obj, x: obj.inner.scale * x)
    obj = Holding(3)
    obj.used = True  # which the rebuilt one is not
    for scale in (1.0, 2.0, 3.0):
        obj.inner.scale = scale
        assert_array_equal(f(obj, x), obj.inner.scale * x)
    obj.inner = Plain(scale=x)
    assert_array_equal(f(obj, x), x * x)


class Loaded:
    """It can be made again for as long as its file is there."""

    def __init__(self, path):
        with open(path):
            self.path = path
        self.w = jnp.zeros(3)

    def __reduce__(self):
        return Loaded, (self.path,)


def test_an_object_that_can_no_longer_be_put_together_says_so(x, tmp_path):
    path = tmp_path / "w"
    path.touch()
    f = autojit.jit(lambda obj, y: obj.w * y)
    obj = Loaded(str(path))
    for y in (1, 2):
        assert_array_equal(f(obj, y), obj.w)
    path.unlink()
    for y in (1, 2):  # Both are known.
        assert_array_equal(f(obj, y), obj.w)
    obj.w = x
    for _ in range(2):
        with pytest.raises(TypeError, match=r"args\[0\].*cannot be put together"):
            f(obj, 1)


class Changing:
    """It is not what it was made of: its reduction passes on the wrong thing."""

    def __init__(self, w, change=operator.add, *more):
        self.w = change(w, *more or (w,))
        self.how = (change, *more)

    def __reduce__(self):
        return Changing, (self.w, *self.how)


@pytest.mark.parametrize("slightly", [False, True], ids=["", "slightly"])
@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "bfloat16", "float32", "complex64", "int8", "key"]
)
def test_an_array_that_a_reduction_changes_is_noticed(dtype, slightly):
    f = autojit.jit(lambda obj: obj.w)
    for i in range(2):
        w, change = jnp.arange(1.0 + i, 4 + i), ()
        if dtype == "key":
            w, change = jax.random.key(i), (jax.random.fold_in, int(slightly))
        elif slightly:
            change = operator.mul, 1.0001 if dtype in ("float32", "complex64") else 2
        if dtype != "key":
            w = w.astype(dtype)
        obj = Changing(w, *change)
        assert jnp.array_equal(f(obj), obj.w)


class Derived:
    """It computes from its array what its reduction need not pass on."""

    def __init__(self, w):
        self.w = w
        self.norm = jnp.sqrt(jnp.sum(w**2))
        self.inverse = None

    def __reduce__(self):
        return Derived, (self.w,)


def test_what_a_constructor_computes_once_more_is_no_new_trace(x):
    f = autojit.jit(lambda obj: obj.w / obj.norm)
    for i in range(3):
        obj = Derived(x + i)
        for inverse in (None, 1 / obj.norm, 1 / obj.norm):
            obj.inverse = inverse
            assert_array_equal(f(obj), (x + i) / obj.norm)
    assert f.cache_info().traces <= 2  # without and with `inverse`
    obj.norm = jnp.float32(1)
    assert_array_equal(f(obj), obj.w)


class Stepper:
    """It holds a dispatcher of a method of its own, as many do."""

    def __init__(self, w, wrap):
        self.w = w
        self.fast = wrap(self.step)

    def step(self, x):
        return self.w * x


WRAPPERS = {
    "method": autojit.jit,
    "partial": lambda method: autojit.jit(functools.partial(method)),
    "twice": lambda method: autojit.jit(autojit.jit(method)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_dispatcher_of_a_method_is_of_the_copys_method(x, wrap):
    stepper = Stepper(x, wrap)
    f = autojit.jit(lambda stepper, x: stepper.fast(x))
    for w in (x, x + 1, x + 2):
        stepper.w = w
        assert_array_equal(f(stepper, x), x * stepper.w)
        assert_array_equal(stepper.fast(x), x * stepper.w)
        assert_array_equal(autojit.jit(stepper.fast)(x), x * stepper.w)
    assert f.cache_info().traces == 1

    def loss(w):
        stepper.w = w
        return jnp.sum(f(stepper, x))

    assert_array_equal(jax.grad(loss)(x), x)
    stepper.w = x  # no tracer
    # As an argument itself, and in a result.
    assert_array_equal(autojit.jit(lambda g, x: g(x))(stepper.fast, x), stepper.fast(x))
    back = autojit.jit(lambda stepper: stepper)(stepper)
    back.w = 3 * x
    assert_array_equal(back.fast(x), 3 * x * x)
    assert_array_equal(stepper.fast(x), x * x)


class Shadowing:
    """Its dispatcher has the name of its method."""

    def __init__(self, w):
        self.w = w
        self.step = autojit.jit(self.step)

    def step(self, x):
        return self.w * x


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_dispatcher_that_shadows_its_method_is_copied_and_pickled(x, again):
    model = Shadowing(np.asarray(x))
    for held in {"step": model.step, "m": model}, {"m": model, "step": model.step}:
        step = again(held)["step"]
        assert_array_equal(step(x), x * x)
        assert step.__name__ == "step"
    f = autojit.jit(lambda model, x: model.step(x))
    assert_array_equal(f(again(model), x), x * x)


def test_a_dispatcher_of_a_function_stays_itself(x):
    @autojit.jit
    def double(x):
        return 2 * x

    back, y = autojit.jit(lambda g, x: (g, g(x)))(double, x)
    assert back is double
    assert_array_equal(y, 2 * x)


def test_an_empty_dispatcher_says_so(x):
    empty = type(autojit.jit(jnp.sin))._empty()
    for use in (lambda: empty(x), empty.cache_info, empty.clear_cache):
        with pytest.raises(ReferenceError, match="has no function"):
            use()
    assert not hasattr(empty, "__signature__")
    full = autojit.jit(Stepper(x, autojit.jit).step)
    with pytest.raises(RuntimeError, match="has its function"):
        full.__setstate__((jnp.sin, (), full._options, 1, 1, {}))
    with pytest.raises(ValueError, match="wrap itself"):
        empty.__setstate__((autojit.jit(empty), (), full._options, 1, 1, {}))


class Quantity(np.ndarray):
    """Its `__new__` takes other arguments."""

    def __new__(cls, values, unit="m"):
        made = np.asarray(values, np.float32).view(cls)
        made.unit = unit
        return made

    def __array_finalize__(self, obj):
        self.unit = getattr(obj, "unit", "m")


class Tagged(np.ndarray):
    """Attributes are set from outside."""


class WithSlots(np.ndarray):
    __slots__ = ("unit",)


class Recorded(np.recarray):
    pass


class Masked(np.ma.MaskedArray):
    pass


@pytest.mark.parametrize("cls", [Quantity, Tagged, WithSlots])
def test_a_subclass_of_ndarray_keeps_its_attributes(x, cls):
    f = autojit.jit(lambda q, y: (y * (1000 if q.unit == "km" else 1), q))
    for unit, factor in (("km", 1000), ("m", 1), ("km", 1000)):
        made = with_attributes(np.ones(3, np.float32).view(cls), unit=unit)
        y, q = f(made, x)
        assert_array_equal(y, factor * x)
        assert type(q) is cls
        assert q.unit == unit
        assert_array_equal(q, made)
    assert f.cache_info().traces == 2


def test_a_subclass_of_a_subclass_of_ndarray(x):
    record = np.rec.array([(1, 2.0)], dtype=[("a", int), ("b", float)]).view(Recorded)
    masked = np.ma.array([1.0, 2.0], mask=[True, False]).view(Masked)
    for array in (record, masked):
        array.unit = "km"
        result = autojit.jit(lambda array, y: (array, y, array.unit))(array, x)
        assert type(result[0]) is type(array)
        assert result[2] == "km"
        assert result[0].unit == "km"


class AttrDict(dict):
    """A dict whose keys are its attributes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.__dict__ = self


def test_a_dict_that_is_its_own_attributes(x):
    @autojit.jit
    def f(config, y):
        config.lr = 5.0
        config["inner"].w = y + 1
        return y * config["lr"], config

    config = AttrDict(lr=1.0, inner=AttrDict(w=x))
    for i in range(2):
        y, result = f(config, x + i)
        assert_array_equal(y, 5 * (x + i))
        assert type(result) is AttrDict
        assert result.__dict__ is result
        assert result.lr == result["lr"] == 5.0
        assert_array_equal(result.inner["w"], x + i + 1)
    assert config == {"lr": 1.0, "inner": {"w": x}}
    assert f.cache_info().traces == 1


def test_a_constant_array_of_jax_in_a_closure(x):
    f = autojit.jit(lambda g, c: g(c))
    _, pullback = jax.vjp(lambda x: np.float32(3) * x, x)
    for _ in range(2):
        assert_array_equal(f(pullback, x)[0], 3 * x)
    assert f.cache_info().traces == 1
    _, linear = jax.linearize(lambda x: np.float32(3) * x, x)
    assert_array_equal(f(linear, x), 3 * x)
    jaxpr = jax.make_jaxpr(lambda x: np.ones(3, np.float32) * x)(x)
    run = autojit.jit(lambda jaxpr, x: jax.extend.core.jaxpr_as_fun(jaxpr)(x))
    assert_array_equal(run(jaxpr, x)[0], x)


class WithHistory:
    def __init__(self, w):
        self.w = w
        self.history = []

    def __getstate__(self):
        state = self.__dict__.copy()
        del state["history"]  # fails for a copy, which has none
        return state


def test_a_state_that_leaves_out_what_a_copy_has_not(x):
    f = autojit.jit(lambda obj: obj.w * 2)
    obj = WithHistory(x)
    for i in range(4):
        obj.w = x + i
        obj.history.append(i)
        assert_array_equal(f(obj), 2 * (x + i))
    assert f.cache_info().traces == 1
