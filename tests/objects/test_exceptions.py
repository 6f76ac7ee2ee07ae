"""Exceptions as values, in arguments and in results: where they come from stays."""

import copy
import pickle
import traceback

import jax
import numpy as np
import pytest

import autojit


def throw(error):
    raise error


def raised(*args, cause=None, kind=ValueError):
    """Return an exception that was raised while another one was handled."""
    try:
        try:
            {}["context"]
        except KeyError:
            error = kind(*args)
            error.add_note("a note")
            if cause is not None:
                raise error from cause
            throw(error)  # with its context only
    except kind as caught:
        return caught


def origin(error):
    """Return what an exception says of itself, and all that it comes from."""
    if error is None:
        return None
    return (
        type(error),
        [str(arg) for arg in error.args],
        getattr(error, "__notes__", None),
        error.__suppress_context__,
        origin(error.__cause__),
        origin(error.__context__),
    )


@pytest.mark.parametrize("forward", [True, False])
def test_where_an_exception_comes_from_stays_in_arguments_and_results(x, forward):
    seen = []

    @autojit.jit(forward=forward)
    def f(errors, x):
        seen.append("".join(traceback.format_exception(errors[0])))
        return {"errors": errors}, x + 1

    for cause in KeyError("cause"), None:
        before = f.cache_info().traces
        for _ in range(3):
            error = raised("mine", cause=cause)
            back = f([error, error], x)[0]["errors"]
            assert back[0] is back[1] is not error
            assert origin(back[0]) == origin(error)
            # Each caller's own.
            assert back[0].__traceback__ is error.__traceback__
            assert back[0].__context__.__traceback__ is error.__context__.__traceback__
        assert f.cache_info().traces == before + 1
        # The first one: what it prints, the function prints.
        assert "a note" in seen[-1]
        assert "in raised" in seen[-1]
        assert ("direct cause" in seen[-1]) == (cause is not None)


def test_exceptions_that_come_from_others_are_others(x):
    f = autojit.jit(lambda error, x: (error.__cause__, x))
    for name in "one", "other", "one":
        cause, _ = f(raised("mine", cause=KeyError(name)), x)
        assert cause.args == (name,)
    assert f.cache_info().traces == 2


def test_an_array_in_a_cause_is_traced(x):
    f = autojit.jit(lambda error: error.__cause__.args[0] * 2)
    for y in x, x + 1:
        np.testing.assert_array_equal(f(raised(cause=KeyError(y))), y * 2)
    assert f.cache_info().traces == 1


def test_a_cycle_through_the_context_stays_one(x):
    one, other = raised("one"), raised("other")
    one.__context__, other.__context__ = other, one
    other.__cause__ = other
    f = autojit.jit(lambda errors, x: (errors, x + 1))
    for error in one, other:
        (back,), _ = f([error], x)
        assert back.args == error.args
        assert back.__context__.__context__ is back
        two = back if back.args == ("other",) else back.__context__
        assert two.__cause__ is two


class WithCode(ExceptionGroup):
    def __new__(cls, message, exceptions, code):
        made = super().__new__(cls, message, exceptions)
        made.code = code
        return made

    def derive(self, exceptions):
        return WithCode(self.message, exceptions, self.code)


def test_exception_groups_stay_what_they_are(x):
    member = raised("member", x)
    inner = ExceptionGroup("inner", [member, TypeError("type")])
    inner.add_note("of the group")
    outer = BaseExceptionGroup("outer", [inner, KeyboardInterrupt(), member])
    own = WithCode("own", [member], 7)
    # Raised while the group that they are in was handled.
    member.__context__ = inner
    inner.exceptions[1].__cause__ = outer
    f = autojit.jit(lambda groups: groups)
    for groups in (outer, own), (own, outer), (member, own, outer):
        back = f(groups)
        found = {type(group): group for group in back}
        two, code = found[BaseExceptionGroup], found[WithCode]
        assert two.message == "outer"
        assert str(two) == str(outer)
        assert repr(two) == repr(outer)
        one, interrupt, again = two.exceptions
        assert type(one) is ExceptionGroup
        assert type(interrupt) is KeyboardInterrupt
        assert one.__notes__ == ["of the group"]
        assert one.exceptions[0] is again is code.exceptions[0]
        assert again.args[1] is x
        assert again.__context__ is one
        assert one.exceptions[1].__cause__ is two
        assert (code.code, code.message, code.args[2]) == (7, "own", 7)
        matched, rest = two.split(TypeError)
        assert [str(e) for e in matched.exceptions[0].exceptions] == ["type"]
        assert len(rest.exceptions) == 3
    assert f.cache_info().traces == 3


def fails_inside(x):
    """Raise and catch, with tracers in the frames."""
    y = x * 2
    try:
        try:
            raise KeyError("context", y)
        except KeyError:
            raise ValueError("mine") from TypeError("cause")
    except ValueError as error:
        error.add_note("a note")
        return error


def test_the_traceback_of_what_was_raised_in_the_trace_stays_there(x):
    f = autojit.jit(fails_inside)
    for y in x, x + 1:
        with jax.checking_leaks():
            error = f(y)
        assert error.__traceback__ is None
        assert error.__context__.__traceback__ is None
        assert type(error.__cause__) is TypeError
        assert error.__notes__ == ["a note"]
        np.testing.assert_array_equal(error.__context__.args[1], y * 2)


def test_no_traceback_of_a_trace_is_kept_by_a_nested_dispatcher(x):
    inner = autojit.jit(lambda error: (error, 1))

    @autojit.jit
    def outer(x):
        return [fails_inside(x), *inner(fails_inside(x))]

    with jax.checking_leaks():
        one, other, _ = outer(x)
    assert origin(one) == origin(other)
    assert one.__traceback__ is other.__traceback__ is None
    # One that is older than both goes through both.
    outer = autojit.jit(lambda error, x: (inner(error)[0], x + 1))
    for _ in range(2):
        error = raised("mine")
        assert outer(error, x)[0].__traceback__ is error.__traceback__


def test_what_is_raised_again_in_the_trace_keeps_the_older_part(x):
    @autojit.jit
    def f(error, x):
        y = x + 1
        try:
            raise error
        except ValueError as caught:
            return caught, y

    for _ in range(2):
        error = raised("mine")
        with jax.checking_leaks():
            back, _ = f(error, x)
        assert back.__traceback__ is error.__traceback__


class OtherArguments(Exception):
    """Passes on to its base other arguments than it takes."""

    def __init__(self, number, *, name):
        super().__init__(f"{name}: {number}")
        self.name, self.number = name, number


class OtherOSError(OSError):
    def __init__(self, path):
        super().__init__(2, "missing", path)


def test_an_exception_that_takes_other_arguments_goes_through(x):
    f = autojit.jit(lambda *errors: (errors, x))
    error = OtherArguments(x, name="a")
    other = OtherOSError("here")
    for _ in range(2):
        (one, two), _ = f(error, other)
        assert (type(one), one.args, one.name) == (OtherArguments, error.args, "a")
        assert one.number is x
        assert (type(two), two.errno, two.filename) == (OtherOSError, 2, "here")
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(error))
    assert f.cache_info().traces == 1


def test_an_error_of_jax_in_a_result_goes_through(x):
    @autojit.jit
    def f(x):
        try:
            return bool(x[0])
        except TypeError as error:
            try:
                raise ValueError("mine") from error
            except ValueError as mine:
                return mine

    error = f(x)
    assert type(error.__cause__) is jax.errors.TracerBoolConversionError
    assert "leaves[0]" in str(error.__cause__)


ERRORS = [
    UnicodeDecodeError("utf-8", b"abc", 1, 2, "reason"),
    SyntaxError("message", ("file", 1, 2, "text")),
    ImportError("message", name="name", path="path"),
    FileNotFoundError(2, "missing", "file"),
    StopIteration(5),
    SystemExit(3),
    KeyError("key"),
    AttributeError("message", name="name"),
    NameError("message", name="name"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_builtin_exception_holds_stays(error, x):
    error.__context__ = KeyError("context")
    error.__suppress_context__ = True
    back, _ = autojit.jit(lambda error, x: (error, x))(error, x)
    assert origin(back) == origin(error)
    names = "reason lineno path errno filename value code name"
    for name in names.split():
        assert getattr(back, name, None) == getattr(error, name, None)


def test_flatten_keeps_where_an_exception_comes_from():
    error = raised("mine", cause=KeyError())
    leaves, skeleton = autojit.flatten(error)
    back = skeleton.unflatten(leaves)
    assert origin(back) == origin(error)
    assert back.__traceback__ is error.__traceback__
    assert autojit.flatten(raised("mine", cause=KeyError()))[1] == skeleton
    assert autojit.flatten(raised("mine"))[1] != skeleton
    assert copy.copy(error).__cause__ is None  # which is why
