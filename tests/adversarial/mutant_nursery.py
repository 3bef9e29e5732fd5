"""A process that has loaded other people's libraries, and runs pytest against mutated copies in forks of itself.

A mutated copy needs an interpreter in which nothing of ours was ever imported; but most of the seconds that a fresh
one takes go into torch and its like, which no mutation changes. Run as a program by `mutations.py`:

    python tests/adversarial/mutant_nursery.py

reads one order as a line of JSON and answers with a line of JSON when the child has ended:

    {"folder": "the copy", "arguments": ["-x", ...], "output": "a file", "timeout_s": 120}  ->  {"status": 1}

The status is pytest's; null if the child had to be killed.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
from typing import NoReturn

LIBRARIES = (
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.x509",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "dp_accounting.pld.privacy_loss_distribution",
    "google.protobuf.message",
    "grpc.aio",
    "hypothesis.strategies",
    "jinja2",
    "nibabel",
    "numpy",
    "opacus.accountants",
    "opacus.optimizers",
    "pandas",
    "pydantic.main",
    "pydantic.type_adapter",
    "pydantic.types",
    "pydicom",
    "pytest",
    "scipy.stats",
    "sklearn.model_selection",
    "sqlalchemy",
    "structlog",
    "torch._dynamo",  # by the first optimizer that is made, and it is a second of work
    "yaml",
)


def main() -> None:
    """Load, then fork on demand."""
    for name in LIBRARIES:
        importlib.import_module(name)
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - as sys.path spells it
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]
    gc.collect()
    gc.freeze()  # what was loaded here is no rubbish: no child looks through it, as each would at its end, twice
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(order)
        print(json.dumps({"status": _status(child, float(order["timeout_s"]))}), flush=True)


def _status(child: int, timeout_s: float) -> int | None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _become(order: dict[str, object]) -> NoReturn:
    """In the child: run pytest in the copy, and end with its status."""
    import pytest  # noqa: PLC0415 - loaded already

    status = 99
    try:
        output = os.open(str(order["output"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(str(order["folder"]))
        sys.path.insert(0, str(order["folder"]))
        arguments = order["arguments"]
        assert isinstance(arguments, list)
        status = int(pytest.main(arguments))
    except BaseException:  # noqa: BLE001 - as the interpreter would: say it, and end with a status of its own
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
