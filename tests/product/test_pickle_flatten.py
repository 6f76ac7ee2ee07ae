"""The drop-ins for ``pickle_flatten`` and ``pickle_unflatten`` of array-api-extra."""

import inspect
import pickle
import types

import jax
import jax.numpy as jnp
import pytest
from array_api_extra._lib._helpers import pickle_flatten as reference_flatten
from array_api_extra._lib._helpers import pickle_unflatten as reference_unflatten
from array_api_extra.tests.main import test_helpers as suite
from graphs import equal_leaves, same_graph
from hypothesis import given
from hypothesis import strategies as st
from kinds import Data, Plain, Slots, SubPlain, double

import autojit
from autojit import pickle_flatten, pickle_unflatten


class Instance:
    """What is taken out in most tests."""


@pytest.fixture(params=["autojit", "reference"])
def pair(request):
    """Both pairs of functions: what they do alike is asked of both."""
    if request.param == "autojit":
        return pickle_flatten, pickle_unflatten
    return reference_flatten, reference_unflatten


# --- The reference's own tests

OF_THE_REFERENCE = [
    name
    for name, _ in inspect.getmembers(suite.TestPickleFlatten, inspect.isfunction)
    if name.startswith("test_")
]


def test_the_reference_has_tests():
    assert len(OF_THE_REFERENCE) >= 7


@pytest.mark.parametrize("name", OF_THE_REFERENCE)
def test_the_reference_s_own(name, monkeypatch):
    monkeypatch.setattr(suite, "pickle_flatten", pickle_flatten)
    monkeypatch.setattr(suite, "pickle_unflatten", pickle_unflatten)
    getattr(suite.TestPickleFlatten(), name)()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pickle_flatten, reference_flatten),
        (pickle_unflatten, reference_unflatten),
    ],
    ids=["pickle_flatten", "pickle_unflatten"],
)
def test_parameters_are_called_alike(ours, theirs):
    def parameters(function):
        return [
            (p.name, p.kind, p.default)
            for p in inspect.signature(function).parameters.values()
        ]

    assert parameters(ours) == parameters(theirs)


# --- What both do


def test_what_is_left_over_is_ignored(pair):
    flatten, unflatten = pair
    _, rest = flatten([1, Instance()], Instance)
    assert unflatten(["a", "b", "c"], rest) == [1, "a"]
    _, rest = flatten([1], Instance)
    assert unflatten(["a"], rest) == [1]


@pytest.mark.parametrize("make", [list, iter, tuple], ids=["list", "iterator", "tuple"])
def test_too_few(pair, make):
    flatten, unflatten = pair
    _, rest = flatten([Instance(), (Instance(), Instance())], Instance)
    for given_ in [], [1], [1, 2]:
        with pytest.raises(ValueError, match=r"^Not enough objects to unpickle"):
            unflatten(make(given_), rest)


def test_a_stream_is_read_no_further_than_needed(pair):
    flatten, unflatten = pair
    _, one = flatten([Instance(), "x"], Instance)
    _, none = flatten("nothing", Instance)
    _, two = flatten({"a": Instance(), "b": [Instance()]}, Instance)

    def stream():
        yield from [1, 2, 3]
        raise AssertionError("read too far")

    instances = stream()
    assert unflatten(instances, one) == [1, "x"]
    assert unflatten(instances, none) == "nothing"
    assert unflatten(instances, two) == {"a": 2, "b": [3]}


@pytest.mark.parametrize(
    "make",
    [
        lambda items: (item for item in items),
        lambda items: map(str.upper, items),
        lambda items: dict.fromkeys(items),
        lambda items: dict.fromkeys(items).values(),
    ],
    ids=["generator", "map", "dict", "dict view"],
)
def test_any_iterable_will_do(pair, make):
    flatten, unflatten = pair
    _, rest = flatten((Instance(), [Instance()]), Instance)
    first, second = make(["a", "b"])
    assert unflatten(make(["a", "b"]), rest) == (first, [second])


def test_what_the_iterable_raises_propagates(pair):
    flatten, unflatten = pair
    _, rest = flatten([Instance()], Instance)
    with pytest.raises(ZeroDivisionError):
        unflatten((1 // 0 for _ in range(1)), rest)


def test_an_instance_that_occurs_twice_is_there_twice(pair):
    flatten, unflatten = pair
    instance = Instance()
    instances, rest = flatten([instance, [instance]], Instance)
    assert instances == [instance, instance]
    assert unflatten("ab", rest) == ["a", ["b"]]


def test_the_object_itself_may_be_an_instance(pair):
    flatten, unflatten = pair
    instances, rest = flatten(["not", "looked", "into"], list)
    assert instances == [["not", "looked", "into"]]
    assert unflatten([1], rest) == 1


def test_instances_of_subclasses_and_by_abstract_classes(pair):
    flatten, _ = pair
    obj = [Plain(a=1), SubPlain(a=2), True, 2]
    assert flatten(obj, Plain)[0] == obj[:2]
    assert flatten(obj, (Plain, int))[0] == obj
    assert flatten(obj, (SubPlain, (bool,)))[0] == obj[1:3]


def test_arrays_are_all_that_jax_array_takes_out(pair, x):
    """By default, `autojit.flatten` takes out more of JAX."""
    flatten, _ = pair
    ref = jax.new_ref(x)
    instances, _ = flatten({"array": x, "ref": ref}, jax.Array)
    assert all(isinstance(instance, jax.Array) for instance in instances)
    assert instances[0] is x
    assert not any(instance is ref for instance in instances)

    @jax.jit
    def traced(x):
        assert flatten([x], jax.Array)[0][0] is x
        return x

    traced(x)


def test_what_is_no_class_is_an_error(pair):
    flatten, _ = pair
    with pytest.raises(TypeError, match="isinstance"):
        flatten([1], 3)


def test_the_rest_is_hashed_compared_and_pickled(pair):
    flatten, unflatten = pair

    def make(c):
        return flatten({"a": [Instance(), 1.5], "b": Plain(c=c)}, Instance)[1]

    assert make(1) == make(1)
    assert hash(make(1)) == hash(make(1))
    assert make(1) != make(2)
    loaded = pickle.loads(pickle.dumps(make(1)))
    assert loaded == make(1)
    assert unflatten(["here"], loaded)["a"] == ["here", 1.5]


def test_they_make_a_pytree_of_any_object(pair, x):
    """As the reference's ``jax_autojit`` uses them."""
    flatten, unflatten = pair

    class Wrapper:
        def __init__(self, obj):
            self.obj = obj

    jax.tree_util.register_pytree_node(
        Wrapper,
        lambda wrapper: flatten(wrapper.obj, jax.Array),
        lambda rest, arrays: Wrapper(unflatten(arrays, rest)),
    )
    traces = []

    @jax.jit
    def f(wrapper):
        traces.append(wrapper)
        obj = wrapper.obj
        return Wrapper(Plain(y=obj["scale"] * obj["x"]))

    for _ in range(2):
        out = f(Wrapper({"x": x, "scale": 2.0}))
        assert out.obj.y.tolist() == [0.0, 2.0, 4.0]
    assert len(traces) == 1


def test_what_cannot_be_reduced_is_in_the_rest(pair):
    flatten, unflatten = pair
    generator = (i for i in range(3))
    obj = [generator, double, lambda: 1, jnp, Plain, Instance()]
    instances, rest = flatten(obj, Instance)
    again = unflatten(instances, rest)
    assert all(one is other for one, other in zip(again, obj, strict=True))
    assert list(generator) == [0, 1, 2]


def test_an_iterator_is_copied(pair):
    flatten, unflatten = pair
    iterator = iter([0, Instance()])
    next(iterator)
    instances, rest = flatten(iterator, Instance)
    assert list(unflatten(instances, rest)) == instances
    assert list(iterator) == instances


# --- What differs on purpose: docs/semantics.md


@pytest.mark.parametrize("cls", [dict, tuple])
def test_what_pickle_makes_is_not_in_the_object(cls):
    obj = Plain(a=1)
    assert pickle_flatten(obj, cls)[0] == []
    assert len(reference_flatten(obj, cls)[0]) == 1


def test_classes_of_instances_are_not_in_the_object():
    obj = [Plain(a=1), Plain]
    assert pickle_flatten(obj, type)[0] == [Plain]
    assert reference_flatten(obj, type)[0].count(Plain) == 2


def test_a_tuple_that_occurs_twice():
    shared = (Instance(),)
    assert len(pickle_flatten([shared, shared], Instance)[0]) == 2
    assert len(reference_flatten([shared, shared], Instance)[0]) == 1


def test_a_rest_whose_instances_were_numbers_of_a_range():
    (start, stop, step), rest = pickle_flatten(range(3), int)
    assert pickle_unflatten([start, stop + 1, step], rest) == range(4)
    with pytest.raises(TypeError):
        pickle.dumps(rest)
    pickle.dumps(reference_flatten(range(3), int)[1])


def test_equal_values_have_equal_rests():
    def compare(flatten):
        text = "".join(["a", "b"])
        twice, other = [text, text], [text, "".join(["a", "b"])]
        return flatten(twice, ())[1] == flatten(other, ())[1]

    assert compare(pickle_flatten)
    assert not compare(reference_flatten)


STATELESS = Plain()


def test_an_instance_without_state_is_itself():
    obj = [object(), STATELESS]
    for flatten, unflatten, whole in [
        (pickle_flatten, pickle_unflatten, True),
        (reference_flatten, reference_unflatten, False),
    ]:
        again = unflatten([], flatten(obj, ())[1])
        assert (again[0] is obj[0]) is (again[1] is obj[1]) is whole


# --- Random graphs

ARRAYS = [jnp.arange(3.0), jnp.ones(()), jnp.arange(2)]
ATOMS = [None, True, 0, 1, 2**70, 1.5, -0.0, 2j, "a", "b", b"a", ..., Plain, len, jnp]
CONTAINERS = ["list", "tuple", "dict", "set", "Plain", "SubPlain", "Slots", "Data"]
CONTAINERS += ["namespace", "iterator", "method"]


@st.composite
def graphs(draw):
    """Draw a function that makes a graph, equal ones that share arrays and atoms.

    Each object holds some of those made before, so that they are shared. Lists and
    dicts hold what is made later too: cycles.
    """
    plan = draw(
        st.lists(
            st.tuples(st.sampled_from(CONTAINERS), st.lists(st.integers(0, 40))),
            min_size=1,
            max_size=8,
        )
    )
    backwards = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))

    def build():
        made = [*ARRAYS, *ATOMS]
        start = len(made)
        for kind, refs in plan:
            parts = [made[-1 - ref % len(made)] for ref in refs[:4]]
            pair = [*parts, None, 1][:2]
            # An iterator is made of what it is over: nothing that may refer to it.
            flat = [made[ref % start] for ref in refs[:4]]
            made.append(
                {
                    "list": lambda parts=parts: parts,
                    "tuple": lambda parts=parts: tuple(parts),
                    "dict": lambda parts=parts: dict(zip("abcd", parts, strict=False)),
                    # One element: its order is nobody's business.
                    "set": lambda refs=refs: {ATOMS[len(refs) % len(ATOMS)]},
                    "Plain": lambda pair=pair: Plain(a=pair[0], b=pair[1]),
                    "SubPlain": lambda pair=pair: SubPlain(b=pair[0], a=pair[1]),
                    "Slots": lambda pair=pair: Slots(*pair),
                    "Data": lambda pair=pair: Data(*pair),
                    "namespace": lambda pair=pair: types.SimpleNamespace(x=pair),
                    "iterator": lambda flat=flat: iter(flat),
                    "method": lambda flat=flat: Plain(a=flat).scaled,
                }[kind]()
            )
        for one, other in backwards:
            holder = made[start + one % len(plan)]
            if type(holder) is list:
                holder.append(made[start + other % len(plan)])
            elif type(holder) is dict:
                holder["later"] = made[start + other % len(plan)]
        return made[-1]

    return build


def without_repeats(objects):
    """Keep each object in its first place: here, a tuple counts each time it occurs."""
    return list(dict.fromkeys(map(id, objects)))


@given(
    graphs(),
    st.sampled_from([jax.Array, Plain, (Slots, set), (jax.Array, bytes), (), list]),
)
def test_random_graphs(build, cls):
    obj = build()
    instances, rest = pickle_flatten(obj, cls)
    of_reference, rest_of_reference = reference_flatten(obj, cls)
    assert without_repeats(instances) == without_repeats(of_reference)

    again = pickle_unflatten(instances, rest)
    if cls not in (Plain, (Slots, set), list):  # which hold parts of the old graph
        assert same_graph(again, obj, equal_leaves)
    theirs = reference_unflatten(of_reference, rest_of_reference)
    assert same_graph(again, theirs, equal_leaves)

    # Others in their places, by identity: pickle takes a tuple that occurs again once,
    # or twice in a cycle.
    others = dict(zip(map(id, instances), instances[::-1], strict=True))
    if cls not in (Plain, list):  # where methods and iterators need their kind
        others = {key: f"instance {i}" for i, key in enumerate(others)}
    ours = pickle_unflatten([*(others[id(i)] for i in instances), "left over"], rest)
    theirs = reference_unflatten(
        [*(others[id(i)] for i in of_reference), "left over"], rest_of_reference
    )
    assert same_graph(ours, theirs, equal_leaves)
    if instances:
        with pytest.raises(ValueError, match=r"^Not enough"):
            pickle_unflatten(instances[:-1], rest)

    _, other = pickle_flatten(build(), cls)
    assert rest == other
    assert hash(rest) == hash(other)
    if cls not in (Plain, list):
        try:
            pickle.dumps(rest_of_reference)
        except Exception:
            return
        assert pickle.loads(pickle.dumps(rest, pickle.HIGHEST_PROTOCOL)) == rest


def test_exported():
    assert {"pickle_flatten", "pickle_unflatten"} <= set(autojit.__all__)
