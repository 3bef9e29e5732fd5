"""A process that has loaded everything already, and makes our commands out of copies of itself.

An agent takes seconds to start, nearly all of it loading torch. A test in which processes die by the dozen cannot wait
for that, so it gives its commands to a nursery, which forks: the child is a process of its own, with its own memory,
files, keys and connections, and from `main` on it runs what `python -m consortium` or `python -m site_agent` runs.

With one difference: an agent from here trains in its own process (`room_in_process.py`) instead of a training child,
which would load torch from the beginning each time. Agents that `world.py` starts have training children.

    python -m tests.e2e.nursery [MODULE ...]

loads those modules too, reads one order as a line of JSON, answers with a line of JSON, and kills its children when its
input ends.

    {"command": ["site-agent", "run", "--home", "H"], "log": "H.log", "faults": {...}, "witness": "folder"}

`log` gets standard output and standard error, or only the latter where `out` names another file. `wait` says that the
answer is to come when the child has ended, with its exit code. `faults` and `witness`: see `faults.py`, `witness.py`.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
from typing import Any, NoReturn

import consortium.cli
import consortium.entry
import site_agent.cli
import site_agent.entry
from site_agent.agent import Agent
from site_agent.room_in_process import RoomInProcess
from tests.e2e import faults, witness

HEAVY = (
    "audit.evidence",
    "consortium.app",
    "consortium.operator",
    "dp_accounting.pld.privacy_loss_distribution",
    "scipy.stats",
    "site_agent.app",
    "site_agent.enrolment",
    "site_agent.round_values",
    "site_agent.site_evidence",
    "torch._dynamo",  # by the first optimizer that is made, and it is a second of work
)
"""What the commands import when they are called, or when a study is prepared."""

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Load, then fork on demand."""
    for name in (*HEAVY, *sys.argv[1:]):
        importlib.import_module(name)
    defaults = Agent.__init__.__kwdefaults__
    assert defaults is not None
    assert "rooms" in defaults
    defaults["rooms"] = RoomInProcess
    gc.collect()
    gc.freeze()  # what was loaded here is no rubbish: no child looks through it, and so copies it
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(order)
        answer: dict[str, int] = {"pid": child}
        if order.get("wait"):
            answer["code"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _bury_the_dead()
        print(json.dumps(answer), flush=True)


def _bury_the_dead() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _become(order: dict[str, Any]) -> NoReturn:
    """In the child: run one command of ours and end with its exit code."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _redirect(order)
        os.environ.update(order.get("env", {}))
        program, *arguments = order["command"]
        sys.argv = [program, *arguments]
        if "witness" in order:
            witness.watch(order["witness"])
        if "faults" in order:
            faults.arm(order["faults"])
        (site_agent.entry if program == "site-agent" else consortium.entry).main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter would: say it, and end with 1
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(order: dict[str, Any]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    errors = os.open(order["log"], flags, 0o600)
    out = os.open(order["out"], flags, 0o600) if "out" in order else errors
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(errors, 2)


if __name__ == "__main__":
    main()
