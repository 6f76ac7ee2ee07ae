"""Callgrind: switched on and off from within, and what it has written."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

OPTIONS = ("--tool=callgrind", "--instr-atstart=no")
"""How to start valgrind, so that nothing is counted before `counted`."""

DUMP = "desc: Trigger: dump "


class Edge(NamedTuple):
    """From one function to another. The files are the binaries that they are in."""

    file: str
    callee_file: str
    callee: str


class Cost(NamedTuple):
    """How often that was called, and how many instructions all of it took."""

    calls: int
    instructions: int


@dataclass
class Profile:
    """What was counted between two dumps.

    Attributes
    ----------
    own
        By binary, the instructions of its own functions, without those they call.
    edges
        The calls, whatever functions of a binary they come from.
    """

    own: Counter[str] = field(default_factory=Counter)
    edges: dict[Edge, Cost] = field(default_factory=dict)


@contextmanager
def counted(label: str) -> Iterator[None]:
    """Count the instructions of the block, and have valgrind write them, labelled."""
    _command("instrumentation", "on")
    yield
    _command("dump", label)
    _command("instrumentation", "off")


def _command(*command: str) -> None:
    """Give valgrind, under which this process runs, a command."""
    sender = subprocess.Popen(
        ["vgdb", f"--pid={os.getpid()}", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Valgrind looks for commands while it runs code. One that waits in the kernel would
    # have to be woken up by ptrace, which is not allowed everywhere.
    while sender.poll() is None:
        pass
    if sender.returncode:
        raise RuntimeError(f"vgdb {' '.join(command)} fails: is this under valgrind?")


def read_profiles(prefix: Path) -> Mapping[str, Profile]:
    """Read what was written to files of that prefix, by label."""
    found = {}
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.startswith(DUMP):
                found[line.removeprefix(DUMP)] = _parse(text)
    return found


def _parse(text: str) -> Profile:
    """Read a profile, of whose format the manual of valgrind has a chapter.

    Names of functions count for nothing here, since a stripped binary has none: it is
    the binary that tells what is whose.
    """
    profile = Profile()
    names: dict[tuple[str, str], str] = {}
    file = callee_file = callee = ""
    calls = 0
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key in {"ob", "cob", "fn", "cfn"}:
            # The first time a name has its number before it, and then it is left out.
            number, _, name = value.partition(" ")
            name = names.setdefault((key.removeprefix("c"), number), name)
        if key == "ob":
            file = callee_file = name
        elif key == "cob":
            callee_file = name
        elif key == "cfn":
            callee = re.sub(r"'\d+$", "", name)  # the depth of a recursion
        elif key == "calls":
            calls = int(value.split()[0])
        elif line[:1].isdigit() or line[:1] in {"+", "-", "*"}:
            cost = int(line.split()[1])
            if calls:
                edge = Edge(file, callee_file, callee)
                before = profile.edges.get(edge, Cost(0, 0))
                profile.edges[edge] = Cost(
                    before.calls + calls, before.instructions + cost
                )
                calls, callee_file = 0, file
            else:
                profile.own[file] += cost
    return profile
