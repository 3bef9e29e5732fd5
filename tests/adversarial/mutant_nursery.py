"""A process that has loaded the libraries and our packages, and runs pytest without a check in forks of itself.

Most of the seconds that a fresh interpreter takes go into what it loads. So a child is told which file is other than
what was loaded, and gives the functions of it that differ their other code (`code_swap.py`). Where that cannot be done,
or a test starts processes of its own, the folder has a mutated copy of the packages: the child forgets everything of
ours and loads that. Run as a program by `mutations.py`:

    python tests/adversarial/mutant_nursery.py ROOT

reads orders, each a line of JSON, and answers each with a line of JSON when its child has ended:

    {"number": 7, "folder": "...", "arguments": ["-x"], "output": "a file", "timeout_s": 9, "copied": false, "file": "",
     "text": ""}
    ->  {"number": 7, "status": 1}

The status is pytest's; null if the child had to be killed; NOT_SWAPPED if `text` cannot take the place of `file`, which
is a path from the root, in what is loaded. With `copied` the packages of the folder are loaded. As many children live
at a time as there are orders without an answer.
"""

import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

# Without gRPC: `consortium.wire` has to be there before it, or every connection is refused.
LIBRARIES = (
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.x509",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "dp_accounting.pld.privacy_loss_distribution",
    "h11",
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
PACKAGES = ("privacy", "consortium", "site_agent", "audit", "tests")
NOT_SWAPPED = 98  # no status of pytest's
LOOKS_S = 0.01


def main(root: Path) -> None:
    """Load, then fork on demand."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - as sys.path spells it
    sys.path[:] = [str(root), *(entry for entry in sys.path if entry not in ("", here))]
    for name in (*LIBRARIES, *modules_of(root)):
        importlib.import_module(name)
    swapping = importlib.import_module("tests.adversarial.code_swap")
    made = swapping.functions_below(root)
    sys.path.remove(str(root))
    gc.collect()
    gc.freeze()  # what was loaded here is no rubbish: no child looks through it, as each would at its end, twice
    living: dict[int, tuple[dict[str, Any], float]] = {}  # by process: its order, and when it is killed
    begun, listening = b"", True
    while listening or living:
        if select.select([0] if listening else [], [], [], LOOKS_S if living else None)[0]:
            listening = bool(read := os.read(0, 1 << 16))
            *lines, begun = (begun + read).split(b"\n")
            for line in lines:
                order = json.loads(line)
                child = os.fork()
                if child == 0:
                    _become(order, root, made)
                living[child] = order, time.monotonic() + float(order["timeout_s"])
        for child, (order, until) in list(living.items()):
            over, status = _status(child, overdue=time.monotonic() > until)
            if over:
                del living[child]
                print(json.dumps({"number": order["number"], "status": status}), flush=True)


def modules_of(root: Path) -> Iterator[str]:
    """Every module of our packages but the programs, and what tests make them work with."""
    for package in PACKAGES:
        below = root / package if package != "tests" else root / "tests/fakes"
        for path in sorted(below.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] != "__main__" and "-" not in path.stem:
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _status(child: int, *, overdue: bool) -> tuple[bool, int | None]:
    """Whether the child has ended, and its exit status; an overdue one is killed, and has none."""
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        return True, os.waitstatus_to_exitcode(status)
    if overdue:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return overdue, None


def _become(order: dict[str, Any], root: Path, made: dict[Any, Any]) -> NoReturn:
    """In the child: run pytest in the folder, and end with its status."""
    import pytest  # noqa: PLC0415 - loaded already

    status = 99
    try:
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(order["folder"])
        # What tests make beside their own folders goes with this one: nothing runs at the end of this process.
        os.environ["TMPDIR"] = tempfile.tempdir = order["folder"]
        sys.path.insert(0, order["folder"])
        if order["copied"]:
            _forget()
        elif order["file"] and not _swapped(root / order["file"], order["text"], made):
            os._exit(NOT_SWAPPED)
        status = int(pytest.main(order["arguments"]))
    except BaseException:  # noqa: BLE001 - as the interpreter would: say it, and end with a status of its own
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _swapped(file: Path, text: str, made: dict[Any, Any]) -> bool:
    swapping = sys.modules["tests.adversarial.code_swap"]
    codes = swapping.swaps(file, file.read_text(), text)
    return codes is not None and swapping.swap(made, codes) > 0


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
