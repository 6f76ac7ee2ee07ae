"""The pytest plugin, in runs of pytest of their own.

Most of them are in this process. Those that ask what is imported, or that have workers,
are in others, and few: each imports JAX.
"""

import re
import sys

import jax
import pytest

from autojit import _install
from pytest_autojit import _settings

SUITE = """
import jax.numpy as jnp
import pytest
from array_api_extra.testing import lazy_xp_function, patch_lazy_xp_functions

import autojit

def double(x, n=2):
    return n * x

lazy_xp_function(double)

@pytest.fixture
def wrapped(request):
    with patch_lazy_xp_functions(request, xp=jnp):
        yield type(double) is autojit.Dispatcher

@pytest.mark.parametrize("n", range(4))
def test_double(wrapped, n):
    assert wrapped
    assert double(jnp.ones(2), n).tolist() == [n, n]
    assert double(jnp.ones(3), n).tolist() == [n, n, n]

@pytest.mark.no_autojit
def test_reference(wrapped):
    assert not wrapped
    assert double(jnp.ones(2)).tolist() == [2, 2]

@pytest.mark.autojit_share("test")
def test_share(wrapped):
    assert wrapped
"""

UNTAGGED = "def test_nothing(): pass"

# What each test checks is all in the outcome, and warnings are errors.
OPTIONS = ("--strict-markers", "-W", "error", "-p", "no:randomly")


@pytest.fixture(autouse=True)
def one_environment(monkeypatch):
    """Let nothing be switched on, or off, from outside."""
    for name in ("AUTOJIT_PYTEST", "JAX_COMPILATION_CACHE_DIR", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def run(pytester, *options):
    """Run the tests in this process; nothing may be left afterwards."""
    before = list(sys.meta_path), dict(_install._replaced), list(_install._installed)
    result = pytester.runpytest_inprocess(*OPTIONS, *options)
    now = list(sys.meta_path), dict(_install._replaced), list(_install._installed)
    assert now == before
    return result


def summary(result):
    """Return the lines of the summary."""
    lines = [line.rstrip() for line in result.outlines]
    starts = [i for i, line in enumerate(lines) if re.fullmatch("=+ autojit =+", line)]
    if not starts:
        return []
    rest = lines[starts[0] + 1 :]
    return rest[: next(i for i, line in enumerate(rest) if line.startswith("="))]


def number(lines, pattern):
    (found,) = filter(None, (re.search(pattern, line) for line in lines))
    return int(found[1])


def test_off_by_default(pytester):
    pytester.makepyfile("""
        import sys

        import pytest

        @pytest.mark.no_autojit
        @pytest.mark.autojit_share("test")
        def test_what_is_imported():
            assert "pytest_autojit" in sys.modules
            assert not {"jax", "autojit", "pytest_autojit._run"} & set(sys.modules)
    """)
    pytester.makeini("[pytest]\nautojit = true")
    pytester._monkeypatch.setenv("AUTOJIT_PYTEST", "1")
    result = pytester.runpytest_subprocess(*OPTIONS, "--autojit", "--no-autojit")
    result.assert_outcomes(passed=1)
    assert "autojit:" not in result.stdout.str()


@pytest.mark.parametrize("way", ["option", "ini", "environment"])
def test_on(pytester, monkeypatch, way):
    pytester.makepyfile(SUITE)
    options = ["-v", "--autojit-cache-dir=none"]
    if way == "option":
        options.append("--autojit")
    elif way == "ini":
        pytester.makeini("[pytest]\nautojit = true")
    else:
        monkeypatch.setenv("AUTOJIT_PYTEST", "1")
    result = run(pytester, *options)
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines("autojit: on, share: session, compilation cache: off")
    lines = summary(result)
    assert number(lines, r"^wrapped +(\d+) functions") == 5
    traced = number(lines, r"^traced +(\d+) times")
    assert 4 <= traced <= 8
    assert number(lines, r"^ +(\d+)  test_on\.double") == traced


def test_quiet(pytester):
    pytester.makepyfile(SUITE)
    result = run(pytester, "--autojit", "-q")
    result.assert_outcomes(passed=6)
    assert "autojit" not in result.stdout.str()


def test_no_copy(pytester, monkeypatch):
    # As if array-api-extra were not there.
    for name in [name for name in sys.modules if "array_api_extra" in name]:
        monkeypatch.delitem(sys.modules, name)
    pytester.makepyfile(UNTAGGED)
    result = run(pytester, "--autojit")
    result.assert_outcomes(passed=1)
    assert summary(result) == [
        "no copy of array-api-extra was imported: nothing changed"
    ]


def test_without_jax(pytester):
    pytester.makepyfile(UNTAGGED)
    pytester.makepyfile(jax='raise ImportError("there is\\nno JAX")')
    pytester.makeini("[pytest]\npythonpath = .")
    result = pytester.runpytest_subprocess(*OPTIONS, "--autojit")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines("autojit: not used, ImportError: there is no JAX")


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("session", [True, True, "test_two.py::test_b"]),
        ("module", ["test_one.py", "test_two.py", "test_two.py::test_b"]),
        (
            "test",
            ["test_one.py::test_a", "test_two.py::test_a", "test_two.py::test_b"],
        ),
        ("none", [False, False, "test_two.py::test_b"]),
    ],
)
@pytest.mark.parametrize("ini", [False, True])
def test_what_is_shared(pytester, monkeypatch, share, expected, ini):
    one = """
        import pytest
        from array_api_extra._lib import _helpers

        def test_a():
            _helpers.jax_autojit(len)
    """
    two = f"""{one}
        @pytest.mark.autojit_share("test")
        def test_b():
            _helpers.jax_autojit(len)
    """
    seen = []
    monkeypatch.setattr(_install, "_wrap", lambda fun, share: seen.append(share))
    pytester.makepyfile(test_one=one, test_two=two)
    pytester.makeconftest("""
        from array_api_extra._lib import _helpers

        def pytest_sessionfinish():
            _helpers.jax_autojit(len)
    """)
    if ini:
        pytester.makeini(f"[pytest]\nautojit_share = {share}")
        result = run(pytester, "--autojit")
    else:
        result = run(pytester, "--autojit", f"--autojit-share={share}")
    result.assert_outcomes(passed=3)
    assert seen == [*expected, share == "session"]  # no test runs at the end
    assert {type(token) for token in seen} <= {bool, str}


def test_mistakes(pytester):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.autojit_share("class")
        def test_no_such_scope(): pass

        @pytest.mark.autojit_share
        def test_no_scope(): pass
    """)
    result = run(pytester, "--autojit")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines("*takes one of 'session', 'module', 'test', 'none'*")
    pytester.makeini("[pytest]\nautojit_share = class")
    result = pytester.runpytest_inprocess("--autojit")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*autojit_share = class*has to be one of session, *")


def programs_in(pytester):
    files = pytester.path.glob("**/*.program")
    return {file.relative_to(pytester.path).parts[0] for file in files}


def test_where_programs_are_kept(pytester, monkeypatch):
    pytester.makepyfile(SUITE)
    # These tests have set JAX's own, which is left alone unless there is an option.
    result = run(pytester, "--autojit")
    result.stdout.fnmatch_lines("*compilation cache: JAX's own, *")
    assert programs_in(pytester) == set()
    run(pytester, "--autojit", "--autojit-cache-dir=by_option")
    assert programs_in(pytester) == {"by_option"}

    own = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        for options in ("-p no:cacheprovider", "--autojit-cache-dir="):
            result = run(pytester, "--autojit", *options.split())
            result.stdout.fnmatch_lines("*compilation cache: off")
        assert programs_in(pytester) == {"by_option"}
        result = run(pytester, "--autojit")
        result.stdout.fnmatch_lines("*compilation cache: .pytest_cache/d/autojit/*")
        assert programs_in(pytester) == {"by_option", ".pytest_cache"}
        pytester.mkdir("folder")
        pytester.makeini("[pytest]\nautojit_cache_dir = by_ini")
        monkeypatch.chdir("folder")
        run(pytester, "--autojit", "..")
        assert "by_ini" in programs_in(pytester)
    finally:
        jax.config.update("jax_compilation_cache_dir", own)


def test_what_may_share_programs(monkeypatch):
    names = {_settings._kind_of_machine()}
    for flags in (
        "--xla_cpu_enable_fast_math=true",
        "--xla_cpu_enable_fast_math=false",
    ):
        monkeypatch.setenv("XLA_FLAGS", flags)
        names.add(_settings._kind_of_machine())
    monkeypatch.setattr(_settings.platform, "machine", lambda: "another")
    names.add(_settings._kind_of_machine())
    monkeypatch.setattr(_settings.importlib.metadata, "version", lambda name: "0")
    names.add(_settings._kind_of_machine())
    assert len(names) == 5
    assert _settings._kind_of_machine() in names


def test_workers_share_a_cache_and_damage_does_no_harm(pytester):
    pytest.importorskip("xdist")
    pytester.makepyfile(SUITE)
    options = [*OPTIONS, "--autojit", "-v"]
    result = pytester.runpytest_subprocess(*options, "-n2")
    result.assert_outcomes(passed=6)
    lines = summary(result)
    assert number(lines, r"^wrapped +(\d+) functions") == 5
    assert number(lines, r"^compiled +(\d+) programs") > 0
    assert number(lines, r"^ +(\d+)  .*\.double") >= 4

    (folder,) = (pytester.path / ".pytest_cache/d/autojit").iterdir()
    files = sorted(folder.iterdir())
    for at, file in enumerate(files):
        data = file.read_bytes()
        file.write_bytes(data[: len(data) * (at % 4) // 4])
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=6)
    assert sorted(folder.iterdir()) == files
    assert number(summary(result), r"^compiled +(\d+) programs") >= len(files)


def test_the_outcomes_are_the_same(pytester):
    """Failures, warnings and captured output."""
    pytester.makepyfile("""
        import sys
        import warnings

        import jax.numpy as jnp
        import pytest
        from array_api_extra._lib import _helpers

        def noisy(x):
            print("out")
            print("err", file=sys.stderr)
            warnings.warn("noisy", UserWarning, stacklevel=1)
            if x.ndim == 2:
                raise ValueError("two")
            return x

        def test_passes(capsys):
            with pytest.warns(UserWarning, match="noisy"):
                _helpers.jax_autojit(noisy)(jnp.ones(2))
            assert capsys.readouterr() == ("out\\n", "err\\n")

        def test_warns():
            _helpers.jax_autojit(noisy)(jnp.ones(2))

        def test_fails():
            _helpers.jax_autojit(noisy)(jnp.ones((2, 2)))

        @pytest.mark.xfail(raises=ValueError, strict=True)
        def test_xfails():
            _helpers.jax_autojit(noisy)(jnp.ones((2, 2)))
    """)
    outcomes = []
    for options in ([], ["--autojit"]):
        result = pytester.runpytest_inprocess("-p", "no:randomly", *options)
        outcomes.append(result.parseoutcomes())
        result.stdout.fnmatch_lines(["*ValueError: two", "*Captured stdout*", "out"])
    expected = {"passed": 2, "failed": 1, "xfailed": 1, "warnings": 3}
    assert outcomes == [expected, expected]


def test_autojit_may_be_imported_before_pytest(pytester):
    """Pytest wants to rewrite packages with plugins, and warns if it is too late."""
    pytester.makepyfile(UNTAGGED)
    options = ["-q", *OPTIONS]
    code = f"import autojit, pytest; raise SystemExit(pytest.main({options}))"
    result = pytester.run(sys.executable, "-c", code)
    result.assert_outcomes(passed=1)
