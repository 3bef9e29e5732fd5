"""Opens a log and appends to it in a process whose n-th system call of a kind kills it, or fails with EIO.

Run by a test as a program of its own: `python -m tests.adversarial.dying_log WORK`. It imports everything once and
forks for every case, because `strace` can be attached to a process that waits, and a Python that starts costs more than
a log that appends. It reads one case a line as JSON and answers each with one line: what the process acknowledged.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

from audit import storage_files
from audit.entries import AuthzDenied, SiteInvited
from audit.errors import AuditError
from audit.log import Log
from tests.fakes.sample_study_log import SampleConsortium

BEFORE = 254
BATCHES = (3, 1)
"""The first fills a tile of 256, so that every kind of file is written and partial tiles are removed."""
CALLS = "%file,%desc"
"""Every system call with a path or a descriptor; what a case says goes by others."""


def lines() -> tuple[SampleConsortium, list[bytes], list[list[bytes]]]:
    """Whose log it is, what is in it, and what is appended."""
    sample = SampleConsortium(rounds=1)
    sample.opening()
    while len(sample.lines) < BEFORE:
        sample.coordinator(AuthzDenied, subject="site:hungary", action="study abort", rule="only the lead may")
    batches = []
    for number, count in enumerate(BATCHES):
        batches.append([sample.coordinator(SiteInvited, site=f"site-{number}-{at}") for at in range(count)])
    return sample, sample.lines[:BEFORE], batches


def work(folder: Path, report: socket.socket) -> None:
    """What dies. Whatever it says here it has acknowledged."""
    storage_files.SYNCS_AT_ONCE = 1  # calls are counted, so no other thread makes any
    sample, _, batches = lines()
    report.recv(1)  # strace is there
    try:
        log = Log.open(folder, sample.log_signer)
        for batch in batches:
            indices = log.append(batch)
            tell(report, indices=indices, checkpoint=log.checkpoint().to_bytes().decode())
        log.close()
    except AuditError as error:
        tell(report, stopped=type(error).__name__, advice=error.advice())
    except BaseException as error:  # noqa: BLE001  # what no user may ever see
        tell(report, traceback=repr(error))
    tell(report, ended=True)
    os._exit(0)


def tell(report: socket.socket, **said: Any) -> None:
    report.send(json.dumps(said).encode() + b"\n")


def traced(folder: Path, trace: Path, injection: str | None) -> dict[str, Any]:
    """Fork, attach strace, let it run; returns what the process said before it ended or died."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        work(folder, theirs)
    theirs.close()
    command = ["strace", "-p", str(child), "-o", str(trace), "-e", f"trace={CALLS}"]
    if injection is not None:
        command += ["-e", f"inject={injection}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        ours.send(b".")
        said = b""
        while part := ours.recv(1 << 16):
            said += part
        _, status = os.waitpid(child, 0)
    ours.close()
    if "attached" not in attached:
        return {"cannot": attached.strip()}
    answer: dict[str, Any] = {"acknowledged": [], "checkpoints": [], "killed": os.WIFSIGNALED(status)}
    for line in said.splitlines():
        one = json.loads(line)
        if "indices" in one:
            answer["acknowledged"] += one["indices"]
            answer["checkpoints"].append(one["checkpoint"])
        else:
            answer.update(one)
    return answer


def main() -> None:
    work_folder = Path(sys.argv[1])
    sample, before, _ = lines()
    log = Log.create(work_folder / "first", sample.log_signer)
    log.append(before)
    log.close()
    for number, line in enumerate(sys.stdin):
        injection = json.loads(line)
        folder, trace = work_folder / str(number), work_folder / f"{number}.trace"
        copytree(work_folder / "first", folder)
        print(json.dumps({"folder": str(folder), "trace": str(trace), **traced(folder, trace, injection)}), flush=True)


if __name__ == "__main__":
    main()
