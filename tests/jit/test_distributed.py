"""Two processes build the same programs in the same order.

Whatever their hash seeds and addresses are: on a cluster they would wait for one
another forever, or run different programs.
"""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[1] / "support" / "distributed_worker.py"


# Cases of the worker, found without running it.
CASES = [
    node.name
    for node in ast.walk(ast.parse(WORKER.read_text()))
    if isinstance(node, ast.FunctionDef)
    and any(isinstance(d, ast.Name) and d.id == "case" for d in node.decorator_list)
]
ON_A_CLUSTER_ONLY = {"collectives"}


def run_workers(directory, seeds, *arguments):
    """Run one worker for each seed at the same time."""
    workers = []
    for rank, seed in enumerate(seeds):
        (directory / str(rank)).mkdir()
        with open(directory / f"{rank}.log", "w") as log:
            worker = subprocess.Popen(
                [sys.executable, str(WORKER), str(directory), str(rank), *arguments],
                env=os.environ
                | {
                    "JAX_PLATFORMS": "cpu",
                    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # to compile faster
                    "JAX_DUMP_IR_MODES": "stablehlo",
                    "PYTHONHASHSEED": seed,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        workers.append(worker)
    try:
        for rank, worker in enumerate(workers):
            code = worker.wait(timeout=300)
            assert code == 0, (directory / f"{rank}.log").read_text()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return directory


def of_case(directory, rank, name):
    """Return what one worker printed, and its modules in order."""
    directory = directory / str(rank) / name
    modules = sorted((directory / "modules").glob("*.mlir"))
    results = (directory / "results").read_text()
    return results, [(path.name, path.read_text()) for path in modules]


def check(directory, name):
    results, modules = of_case(directory, 0, name)
    other_results, other_modules = of_case(directory, 1, name)
    assert "Traceback" not in results
    assert results == other_results != ""
    assert [name for name, _ in modules] == [name for name, _ in other_modules] != []
    for (module, text), (_, other_text) in zip(modules, other_modules, strict=True):
        assert text.splitlines() == other_text.splitlines(), module


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return run_workers(tmp_path_factory.mktemp("plain"), ["1", "2"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two processes of `jax.distributed`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = tmp_path_factory.mktemp("cluster")
    return run_workers(directory, ["3", "4"], f"127.0.0.1:{port}")


@pytest.mark.parametrize("name", [c for c in CASES if c not in ON_A_CLUSTER_ONLY])
def test_hash_seeds_change_no_program(two_processes, name):
    check(two_processes, name)


@pytest.mark.parametrize("name", CASES)
def test_the_processes_of_a_cluster_build_the_same_programs(cluster, name):
    check(cluster, name)
