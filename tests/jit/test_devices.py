"""Several devices: the tests of `eight_devices.py`, in a process that has eight."""

import collections
import inspect
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import eight_devices
import pytest

FILE = Path(eight_devices.__file__)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Return what went wrong, by the name of the test, and the names of those run."""
    report = tmp_path_factory.mktemp("devices") / "report.xml"
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(FILE), f"--junitxml={report}"),
            *("-q", "-p", "no:cacheprovider", f"--rootdir={FILE.parents[2]}"),
        ],
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # or compilation takes longer
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    failures = collections.defaultdict(str)
    names = set()
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name").partition("[")[0]
        names.add(name)
        for outcome in case:
            if outcome.tag in ("failure", "error", "skipped"):
                failures[name] += f"{case.get('name')}\n{outcome.text}\n"
    return failures, names


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, _ in inspect.getmembers(eight_devices, inspect.isfunction)
        if name.startswith("test_")
    ],
)
def test_on_eight_devices(outcomes, name):
    failures, names = outcomes
    assert name in names
    if failures[name]:
        pytest.fail(failures[name], pytrace=False)
