"""A dict that is as it was the last time is not looked through: a change counts."""

import dataclasses
import datetime
import random
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autojit


class Box:
    def __init__(self, value):
        self.value = value


class OtherBox(Box):
    pass


def total(x, tree):
    """Add all numbers up, each with a weight of the place it is in."""
    result = x * 0
    for weight, number in enumerate(numbers(tree), 1):
        result = result + weight * number
    return result


def numbers(tree):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield sum(map(ord, str(key)))
            yield from numbers(value)
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from numbers(item)
    elif isinstance(tree, set):
        yield sum(tree)
    elif isinstance(tree, Box):
        yield 1000 if type(tree) is Box else 2000
        yield from numbers(vars(tree))
    else:
        yield tree


def make(x):
    shared = {"s": 1}
    return {
        "number": 1,
        "array": x,
        "tuple": (1, 2),
        "inner": {"a": 1, "b": {"c": x, "d": 2}},
        "list": [1, {"e": 5}],
        "box": Box({"f": 1}),
        "in a tuple": ({"g": 1}, 2),
        "shared": shared,
        "again": [shared],
        "set": {1, 2},
    }


def store_attribute(tree):
    for i in range(20):  # until the interpreter has found a short way
        tree["box"].value = i


CHANGES = {
    "a number": lambda t: t.update(number=2),
    "another type": lambda t: t.update(number=1.0),
    "True": lambda t: t.update(number=True),
    "a key more": lambda t: t.update(more=1),
    "a key less": lambda t: t.pop("number"),
    "the last key": lambda t: t.popitem(),
    "setdefault": lambda t: t.setdefault("more", 1),
    "another order": lambda t: t.update(number=t.pop("number")),
    "in place": lambda t: t.__ior__({"number": 3}),
    "nothing left": lambda t: t.clear(),
    "all anew": lambda t: (t.clear(), t.update(make(t_x))),
    "a number instead of an array": lambda t: t.update(array=2),
    "an array instead of a number": lambda t: t.update(number=t["array"]),
    "another array": lambda t: t.update(array=t["array"] + 1),
    "in a dict": lambda t: t["inner"].update(a=7),
    "in a dict in a dict": lambda t: t["inner"]["b"].update(d=7),
    "an array further down": lambda t: t["inner"]["b"].update(c=t["array"] * 3),
    "another dict": lambda t: t.update(inner={"a": 3}),
    "an equal dict": lambda t: t.update(inner=dict(t["inner"])),
    "in a list": lambda t: t["list"].append(3),
    "in a dict in a list": lambda t: t["list"][1].update(e=6),
    "in a dict in a tuple": lambda t: t["in a tuple"][0].update(g=6),
    "in a set": lambda t: t["set"].add(9),
    "an attribute": lambda t: setattr(t["box"], "value", 3),
    "an attribute, often": store_attribute,
    "in an attribute": lambda t: t["box"].value.update(f=3),
    "by vars": lambda t: vars(t["box"]).update(value=4),
    "another class": lambda t: setattr(t["box"], "__class__", OtherBox),
    "sharing ends": lambda t: t.update(shared=dict(t["shared"])),
    "sharing begins": lambda t: t.update(inner=t["shared"]),
    "in what is shared": lambda t: t["shared"].update(s=8),
    "itself": lambda t: t["list"].append(t["list"][1]),
}
t_x = jnp.arange(3.0)


@pytest.mark.parametrize("seen", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_counts(x, change, seen):
    f = autojit.jit(total, retrace_warning=None)
    tree = make(x)
    before = autojit.flatten(tree)[1]
    for _ in range(seen):
        np.testing.assert_array_equal(f(x, tree), total(x, tree))
    CHANGES[change](tree)
    for _ in range(3):
        np.testing.assert_array_equal(f(x, tree), total(x, tree))
    f.clear_cache()
    g = autojit.jit(lambda x, tree: total(x, tree), retrace_warning=None)
    other = make(x)
    for _ in range(seen):
        g(x, other)
    CHANGES[change](other)
    g(x, other)
    same = autojit.flatten(other)[1] == before
    assert g.cache_info().traces == (1 if same else 2)


def test_changes_in_any_order(x):
    rng = random.Random(0)
    f = autojit.jit(total, retrace_warning=None)
    for _ in range(8):
        tree = make(x)
        for _ in range(8):
            try:
                CHANGES[rng.choice([*CHANGES])](tree)
            except (KeyError, TypeError, AttributeError):
                continue  # what it would change is gone
            for _ in range(rng.randrange(1, 4)):
                np.testing.assert_array_equal(f(x, tree), total(x, tree))


def test_another_dict_in_the_place_of_one_that_has_gone(x):
    f = autojit.jit(lambda x, tree: x * tree["a"]["b"])
    for i in range(200):
        tree = {"a": {"b": i % 3}}
        for _ in range(1 + i % 4):
            np.testing.assert_array_equal(f(x, tree), x * (i % 3))
        del tree


def test_two_dicts_in_turn(x):
    f = autojit.jit(lambda x, tree: x * tree["a"] + tree["x"])
    one, two = {"a": 1, "x": x}, {"a": 1, "x": x * 2}
    for i in range(12):
        tree = (one, two)[i // 3 % 2]
        np.testing.assert_array_equal(f(x, tree), x + tree["x"])
    assert f.cache_info().traces == 1


def test_the_dict_of_a_module(x):
    module = types.ModuleType("config")
    module.rate = 1
    f = autojit.jit(lambda x, tree: x * tree["rate"], retrace_warning=None)
    for module.rate in (1, 1, 1, 2, 2, 2, 3):
        np.testing.assert_array_equal(f(x, vars(module)), x * module.rate)


def test_the_dict_of_an_instance(x):
    box = Box(1)
    f = autojit.jit(lambda x, tree: x * tree["value"], retrace_warning=None)
    for value in (1, 1, 1, 2, 2, 2, 3, 3, 1):
        box.value = value
        np.testing.assert_array_equal(f(x, vars(box)), x * value)
    assert f.cache_info().traces == 3


class Plain:
    def __init__(self, a, b):
        self.a, self.b = a, b


@dataclasses.dataclass
class Declared:
    a: int
    b: object


class WithSlots:
    __slots__ = ("__dict__", "slot")

    def __init__(self, a, b):
        self.slot, self.a, self.b = b, a, b


class Large(Plain):  # too many attributes to share their names with others
    def __init__(self, a, b):
        super().__init__(a, b)
        for i in range(60):
            setattr(self, f"attribute_{i}", i)


def store(owner, value):
    owner.a = value


def store_anew(owner, value):
    del owner.a
    owner.a = value


def replace_dict(owner, value):
    owner.__dict__ = {**vars(owner), "a": value}


def fill_again(owner, value):
    known = dict(vars(owner))
    vars(owner).clear()
    vars(owner).update(known, a=value)


@pytest.mark.parametrize("cls", [Plain, Declared, WithSlots, Large])
@pytest.mark.parametrize(
    "change",
    [
        store,
        store_anew,
        replace_dict,
        fill_again,
        lambda owner, value: setattr(owner, "a", value),
        lambda owner, value: object.__setattr__(owner, "a", value),
        lambda owner, value: vars(owner).update(a=value),
        lambda owner, value: vars(owner).__setitem__("a", value),
        lambda owner, value: owner.__init__(value, owner.b),
    ],
)
@pytest.mark.parametrize("seen", [1, 3])
def test_attributes_that_change(x, cls, change, seen):
    f = autojit.jit(lambda x, owner: x * owner.a + owner.b[0], retrace_warning=None)
    owners = [cls(0, [x]), cls(0, [x])]
    for value in [1, 2, 3, 2, 1] * 3:
        for owner in owners:
            change(owner, value)
            for _ in range(seen):
                np.testing.assert_array_equal(f(x, owner), x * value + x)
    assert f.cache_info().traces == 3


def test_attributes_that_come_and_go(x):
    f = autojit.jit(lambda x, owner: x * len(vars(owner)), retrace_warning=None)
    owner = Plain(1, x)
    for i in range(30):
        if i % 3 == 0:
            owner.more = i % 2
        elif i % 3 == 2:
            del owner.more
        for _ in range(i % 4):
            np.testing.assert_array_equal(f(x, owner), x * len(vars(owner)))


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize(
    "fill",
    [
        lambda owner: None,
        lambda owner: setattr(owner, "__dict__", {"a": None}),
        lambda owner: [setattr(owner, f"other_{i}", i) for i in range(40)],
    ],
    ids=["few", "own dict", "many"],
)
@pytest.mark.parametrize(
    ("make", "number"),
    [(lambda n: jnp.full(3, n), lambda a: a), (lambda n: Box(n), lambda a: a.value)],
    ids=["array", "instance"],
)
def test_a_call_while_the_old_attribute_goes(x, make, number, fill, as_dict):
    """CPython lets go of it before it counts the change."""
    owner = Plain(None, x)
    fill(owner)
    f = autojit.jit(
        lambda x, o: x * number((o if as_dict else vars(o))["a"]), retrace_warning=None
    )
    arguments = (x, vars(owner) if as_dict else owner)
    for _ in range(50):  # until the interpreter has found a short way
        store(owner, make(1))
    for _ in range(4):
        f(*arguments)
    seen = []
    for n in (2, 3):
        gone = weakref.ref(owner.a, lambda _: seen.append(f(*arguments)))
        store(owner, make(n))
        assert gone() is None
        np.testing.assert_array_equal(seen[-1], x * n)
        for _ in range(4):
            np.testing.assert_array_equal(f(*arguments), x * n)
    assert len(seen) == 2


def test_deleted_arrays_and_tracers_are_seen(x):
    tree = {"a": jnp.arange(3.0), "n": 1}
    f = autojit.jit(lambda tree: tree["a"] * tree["n"])
    for _ in range(4):
        f(tree)
    grad = jax.grad(lambda a: f({"a": a, "n": 1}).sum())(x)
    np.testing.assert_array_equal(grad, jnp.ones(3))
    tree["a"].delete()
    with pytest.raises(RuntimeError, match="deleted"):
        f(tree)


def test_a_change_while_the_walk_is_over_but_the_call_is_not(x):
    """What a reduction does is seen by the next call, as in any other."""
    tree = {"a": 1}

    class Changing:
        armed = False

        def __reduce__(self):
            if Changing.armed:
                tree["a"] = 2
            return Changing, ()

    f = autojit.jit(lambda x, one, tree: x * tree["a"])
    one = Changing()
    for _ in range(4):
        f(x, one, tree)
    Changing.armed = True
    f(x, one, tree)
    np.testing.assert_array_equal(f(x, one, tree), x * 2)


def test_what_is_known_of_dicts_goes_with_the_specialization(x):
    f = autojit.jit(lambda x, tree: x)
    array = jnp.ones(3)
    tree = {"inner": {"array": array}}
    for _ in range(4):
        f(x, tree)
    copies = [autojit.flatten(tree)[1] for _ in range(2)]
    assert copies[0] == copies[1]
    f.clear_cache()
    np.testing.assert_array_equal(f(x, tree), x)


@pytest.mark.parametrize(
    ("put", "get"),
    [
        (lambda day: day, lambda day: day),
        (lambda day: (day, 1), lambda pair: pair[0]),
        (lambda day: (1, ((day,),)), lambda pair: pair[1][0][0]),
        (lambda day: frozenset({day}), lambda days: next(iter(days))),
    ],
    ids=["alone", "in a tuple", "in tuples", "in a frozenset"],
)
@pytest.mark.parametrize("seed", range(3))
def test_constants_that_differ(x, put, get, seed):
    """Whether they are equal is known only after the walk that looks at the dict."""
    rng = random.Random(seed)
    f = autojit.jit(lambda x, tree: x * get(tree["day"]).year, retrace_warning=None)
    trees = [{"day": put(datetime.date(2000 + i, 1, 1))} for i in range(4)]
    for i in rng.choices(range(4), k=300):
        assert f(x, trees[i])[1] == x[1] * (2000 + i)
    assert f.cache_info().traces == 4
