"""The scripts of docs/recipes.md: each runs, and brings no warning of autojit."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import autojit

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
TEXT = PAGE.read_text(encoding="utf-8")
RECIPE = re.compile(
    r"^## (?P<title>.*?)$(?P<words>.*?)^```python\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
RECIPES = {found["title"]: found for found in RECIPE.finditer(TEXT)}


def with_lines_of_the_page(recipe):
    """Return the code after empty lines, so that a traceback names the line."""
    return "\n" * TEXT.count("\n", 0, recipe.start("code")) + recipe["code"]


def test_each_recipe_is_found():
    assert list(RECIPES) == re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert len(RECIPES) == TEXT.count("```python") >= 10
    for recipe in RECIPES.values():
        assert "```" not in recipe["words"]
        assert "assert " in recipe["code"]


# Those that compile a model of a library take their time.
SLOW = ("Train an Equinox model", "Train a Flax NNX model", "Train a Haiku model")


@pytest.mark.parametrize(
    "title",
    [
        pytest.param(title, marks=[pytest.mark.slow] * (title in SLOW))
        for title in RECIPES
    ],
)
def test_a_recipe_runs(title):
    code = compile(with_lines_of_the_page(RECIPES[title]), str(PAGE), "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("error", autojit.RetraceWarning)
        warnings.simplefilter("error", autojit.LostChangeWarning)
        exec(code, {"__name__": "__main__"})


@pytest.mark.slow
def test_several_devices_are_several():
    """The recipe once more, since there is one device here."""
    code = (
        "import jax; assert jax.device_count() == 2\n"
        + RECIPES["Several devices"]["code"]
    )
    flags = "--xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "-W", "error::UserWarning:__main__", "-c", code],
        env={**os.environ, "XLA_FLAGS": flags},
        check=True,
    )


def test_links_on_the_page_lead_somewhere():
    def anchor(title):
        return re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")

    for link in re.findall(r"\]\(#(.*?)\)", TEXT):
        assert link in map(anchor, RECIPES)
    assert "(docs/recipes.md)" in (PAGE.parents[1] / "README.md").read_text()
