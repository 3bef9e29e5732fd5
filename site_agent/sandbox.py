"""Confinement of the process that trains: what it may read, write, start and reach, set by itself at its start.

A bundle, a record or a library may make that process do what nobody wanted (threat T-29). So the very first thing it
does is to give up, for good, what training does not need. Nothing here can be taken back, by that process or by
anything it loads.

Called first of all, BEFORE numpy, torch or any data: Linux confines the calling thread and those it starts later, and
torch's libraries start threads when they are imported. What is imported afterwards is confined as well, so Python's
folders and the system's libraries stay readable (`sandbox_paths.py`).

How a child is to be started, by its parent:

    [sys.executable, "-I", "-m", "site_agent.training_child"]     -I: the current folder is not on its path
    env=child_environment(scratch, os.environ)                    no variable that may hold a secret
    close_fds=True, pass_fds=...                                  an open file or socket is not confined
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consortium.contract.private_process import keep_memory_private
from site_agent import landlock, sandbox_limits, syscall_filter
from site_agent.kernel_calls import Missing
from site_agent.sandbox_paths import child_environment, grants

OPEN_FILES_MAX = 1024
FILE_BYTES_MAX = 64 * 2**30
"""The largest file in the scratch folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What one child is left with. Everything else is refused to it."""

    readable: tuple[Path, ...]
    """Data sets, the study's bundle and weights, prepared images: files, or folders with all that is in them."""
    writable: tuple[Path, ...]
    """The scratch folder. It must exist; a path that does not is left out."""
    memory_bytes: int | None = None
    """Private memory in all (RLIMIT_DATA), as it is asked for, not as it is touched; None: no limit. Never the address
    space: CUDA reserves terabytes of that and uses none of it. Beyond it the child gets a MemoryError."""
    processor_s: int | None = None
    """Processor seconds of all its threads together; beyond them the kernel ends it with SIGXCPU."""
    gpu: bool = False
    """Whether the devices of NVIDIA and AMD can be opened."""
    parent: int | None = None
    """Process id of the parent, after whose end the kernel kills this process; None: it may outlive it. The kernel
    means the parent's THREAD that started it: start children from the thread that lives as long as the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that was to be enforced."""

    name: str
    enforced: bool
    words: str  # what it means, or why it is not enforced


@dataclass(frozen=True, slots=True, kw_only=True)
class Confined:
    """What this kernel enforces now, and what it does not."""

    rules: tuple[Rule, ...]

    @property
    def missing(self) -> tuple[Rule, ...]:
        """Rules that are not enforced here."""
        return tuple(rule for rule in self.rules if not rule.enforced)

    @classmethod
    def from_json(cls, rules: list[dict[str, Any]]) -> "Confined":
        """What `to_json` made, of a process of ours that has read nothing foreign yet."""
        return cls(rules=tuple(Rule(**rule) for rule in rules))

    @property
    def words(self) -> str:
        """One sentence for a log and for `site-agent check`."""
        enforced = ", ".join(rule.name for rule in self.rules if rule.enforced) or "nothing"
        missing = "; ".join(f"{rule.name} ({rule.words})" for rule in self.missing)
        return f"enforced: {enforced}" + (f"; not enforced: {missing}" if missing else "")

    def to_json(self) -> list[dict[str, object]]:
        """For the pipe to the parent, which logs it."""
        return [{"name": rule.name, "enforced": rule.enforced, "words": rule.words} for rule in self.rules]


def confine(confinement: Confinement) -> Confined:
    """Apply all that this kernel offers to the calling process, which must have one thread, and no data yet.

    The order is that of what each needs: the limits and the file that says who is killed first while files can still
    be written, privileges before the rules that want them given up, the filter of system calls last.
    Never raises for what is missing: the report says so, and whoever reads it decides.
    """
    asked = confinement
    os.umask(0o077)
    rules = [
        _tried("no core file", "memory is written to no disk and read by no other program", keep_memory_private),
        _tried("files within bounds", f"{OPEN_FILES_MAX} open, {FILE_BYTES_MAX // 2**30} GiB each", _bound_files),
        _tried(
            "killed first", "where memory is short, this process ends before others", sandbox_limits.be_killed_first
        ),
    ]
    if asked.memory_bytes is not None:
        rules.append(_limited("memory", f"at most {asked.memory_bytes} bytes", "RLIMIT_DATA", asked.memory_bytes))
    if asked.processor_s is not None:
        rules.append(_limited("processor time", f"at most {asked.processor_s} s", "RLIMIT_CPU", asked.processor_s))
    if asked.parent is not None:
        parent = asked.parent
        rules.append(_tried("ends with the agent", "the kernel sees to it", lambda: sandbox_limits.end_with(parent)))
    rules += [
        _tried("no new privileges", "no program would have more rights", sandbox_limits.no_new_privileges),
        _files(asked),
        _tried("no capabilities", "it has no right of root", sandbox_limits.drop_capabilities),
        *_filtered(),
    ]
    return Confined(rules=tuple(rules))


def _files(asked: Confinement) -> Rule:
    """Landlock, which speaks for one thread and those it starts later."""
    name, threads = "files", _threads()
    with suppress(OSError):
        # Left open: a folder of /proc that nobody holds may be made anew, and the new one is not the one allowed.
        os.open("/proc/self", os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = grants(asked.readable, asked.writable, gpu=asked.gpu)
        version = landlock.restrict(allowed)
    except Missing as missing:
        return Rule(name=name, enforced=False, words=str(missing))
    if threads > 1:
        return Rule(name=name, enforced=False, words=f"{threads} threads ran already, and only one of them is bound")
    return Rule(name=name, enforced=True, words=f"only what it was given (Landlock {version})")


def _filtered() -> tuple[Rule, ...]:
    """One filter of system calls is behind several rules: they hold together or not at all."""
    words = {
        "no programs": "it starts no program and no process",
        "no other processes": "it neither signals nor looks into any",
        "no network": "it opens no socket",
    }
    try:
        syscall_filter.restrict()
    except Missing as missing:
        words, enforced = dict.fromkeys(words, str(missing)), False
    else:
        enforced = True
    return tuple(Rule(name=name, enforced=enforced, words=said) for name, said in words.items())


def _bound_files() -> None:
    sandbox_limits.limit("RLIMIT_NOFILE", OPEN_FILES_MAX)
    sandbox_limits.limit("RLIMIT_FSIZE", FILE_BYTES_MAX)


def _limited(name: str, words: str, limit: str, most: int) -> Rule:
    return _tried(name, words, lambda: sandbox_limits.limit(limit, most))


def _tried(name: str, words: str, apply: Callable[[], None]) -> Rule:
    try:
        apply()
    except Missing as missing:
        return Rule(name=name, enforced=False, words=str(missing))
    return Rule(name=name, enforced=True, words=words)


def _threads() -> int:
    """Threads of this process, of libraries too."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return threading.active_count()


__all__ = ["Confined", "Confinement", "Rule", "child_environment", "confine"]


if __name__ == "__main__":  # a trial for `site-agent check`: what this machine enforces, and then the end
    tried = Confinement(readable=(), writable=(), memory_bytes=2**40, processor_s=3600, parent=os.getppid())
    sys.stdout.write(json.dumps(confine(tried).to_json()))
