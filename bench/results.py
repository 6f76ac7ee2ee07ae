"""What was measured, as data and as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

DISTRIBUTIONS = (
    "autojit",
    "jax",
    "jaxlib",
    "equinox",
    "flax",
    "optax",
    "array-api-extra",
)


@dataclass(frozen=True)
class Timing:
    """One peer in one workload. Times are those of one call.

    `ratios` are those to the baseline in the same round, and `ratio` is their median.
    `ns_per_node` is what that adds to the baseline's minimum, by static node.
    """

    peer: str
    note: str
    min_us: float
    median_us: float
    ratio: float
    ratios: list[float]
    ns_per_node: float | None
    agrees: bool


@dataclass(frozen=True)
class Outcome:
    """All peers in one workload; `failures` tells what some raised instead."""

    workload: str
    title: str
    baseline: str
    nodes: int | None
    timings: list[Timing]
    failures: dict[str, str]

    @property
    def sound(self) -> bool:
        """Whether all peers work and agree."""
        return not self.failures and all(timing.agrees for timing in self.timings)


@dataclass(frozen=True)
class Environment:
    """What the figures depend on."""

    python: str
    jax: str
    backend: str
    cpu: str
    cores: int
    versions: dict[str, str]

    def __str__(self) -> str:
        jax = f"JAX {self.jax} ({self.backend})"
        return f"{self.python} · {jax} · {self.cpu}, {self.cores} cores"

    @classmethod
    def current(cls) -> Environment:
        """Describe this process."""
        versions = {}
        for name in DISTRIBUTIONS:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
        return cls(
            python=f"{platform.python_implementation()} {platform.python_version()}",
            jax=jax.__version__,
            backend=jax.default_backend(),
            cpu=_cpu(),
            cores=os.cpu_count() or 1,
            versions=versions,
        )


def _cpu() -> str:
    """Return the name of the processor; on Linux, Python itself does not know it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Report:
    """A run of the benchmark. `left_out` says what did not take part, and why."""

    environment: Environment
    rounds: int
    left_out: list[str]
    outcomes: list[Outcome]

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read what `write` wrote."""
        report = json.loads(path.read_text(encoding="utf-8"))
        report["environment"] = Environment(**report["environment"])
        for outcome in report["outcomes"]:
            outcome["timings"] = [Timing(**timing) for timing in outcome["timings"]]
        report["outcomes"] = [Outcome(**outcome) for outcome in report["outcomes"]]
        return cls(**report)
