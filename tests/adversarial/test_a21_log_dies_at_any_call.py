"""A-21: the process that writes the log is killed, or a disk answers EIO, at any system call of an append-and-publish.

`dying_log.py` opens a log of 254 entries, appends 3 and then 1, and closes it under `strace`, which lets the n-th call
of one kind kill the process or fail. After every single one: the published files are whole before anybody mends them,
no acknowledged entry is lost, what was signed is a prefix of what is there, and `consortium audit fsck` finds nothing.

Held by: the order of `Log._integrate`, the durable writes of `LogFiles`, and what an opened log completes and removes.
Tried: rows a21 of `mutations.py` (half-written files left behind, a start that does not look into the log's tail); and
by hand a checkpoint published before its tiles, files written in place, partial tiles removed before the new checkpoint
(`test_killed_at_every_call` fails each time), and SQLite's errors let through (`test_every_call_fails_once`).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

import audit
from audit import merkle
from audit.checkpoint import verify_checkpoint
from audit.fsck import examine
from audit.log import Log, LogView
from consortium.database import Database, outbox
from consortium.record import Recorder
from tests.adversarial.dying_log import BATCHES, BEFORE, lines

ROOT = Path(audit.__file__).parents[1]
CHANGING = {
    "fchown", "fdatasync", "flock", "fsync", "ftruncate", "mkdir", "mmap", "openat", "pwrite64", "rename", "rmdir",
    "unlink", "write",
}  # fmt: skip
"""Calls that may change something on the disk: to die before another call is to die before the next of these."""

SAMPLE, FIRST, APPENDED = lines()
WHOLE = [*FIRST, *(entry for batch in APPENDED for entry in batch)]
VERIFIER = SAMPLE.log_signer.verifier


class Dying:
    """The program that dies, and a line of its answers for each case."""

    def __init__(self, folder):
        command = [sys.executable, "-m", "tests.adversarial.dying_log", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def run(self, injection):
        self.process.stdin.write(json.dumps(injection) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture(scope="module")
def dying(tmp_path_factory):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed here")
    program = Dying(tmp_path_factory.mktemp("dying"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def calls(dying):
    """How often each call is made when nothing goes wrong."""
    whole = dying.run(None)
    if "cannot" in whole:
        pytest.skip(f"strace cannot attach to a process here: {whole['cannot']}")
    assert whole["acknowledged"] == list(range(BEFORE, BEFORE + sum(BATCHES)))
    assert not whole["killed"]
    assert "stopped" not in whole
    look(whole)
    return Counter(re.findall(r"^([a-z0-9_]+)\(", Path(whole["trace"]).read_text(), flags=re.MULTILINE))


def look(answer):
    """What the next process finds, and the process after it."""
    folder = Path(answer["folder"])
    case = (answer, Path(answer["trace"]).read_text()[-1500:])
    assert "traceback" not in answer, case
    published = LogView.read(folder, VERIFIER)
    published.fsck()  # nobody has mended anything yet
    signed = [verify_checkpoint(text.encode(), VERIFIER).checkpoint for text in answer["checkpoints"]]
    signed.append(published.checkpoint().checkpoint)
    published.close()
    log = Log.open(folder, SAMPLE.log_signer)
    found = list(log.entries())
    assert found == WHOLE[: len(found)], case
    assert len(found) >= max([BEFORE - 1, *answer["acknowledged"]]) + 1, case
    for old in signed:
        new, proof = log.checkpoint().checkpoint, log.consistency_proof(old.size)
        merkle.verify_consistency(old=old.size, new=new.size, old_root=old.root, new_root=new.root, proof=proof)
    log.append(WHOLE[len(found) :] or WHOLE[:1])
    size = log.size
    log.close()
    assert examine(folder, VERIFIER).entries == size
    assert [path for path in (folder / "public").rglob(".*") if path.is_file()] == [], case
    shutil.rmtree(folder)


@pytest.mark.slow
def test_killed_at_every_call(dying, calls):
    deaths = 0
    for call in CHANGING & calls.keys():
        for number in range(1, calls[call] + 1):
            answer = dying.run(f"{call}:signal=SIGKILL:when={number}")
            deaths += answer["killed"]
            look(answer)
    assert deaths == sum(calls[call] for call in CHANGING) > 100


@pytest.mark.slow
def test_every_call_fails_once(dying, calls):
    """Those that only look: every third, or each with EVERY_CALL=1 in the environment (another minute)."""
    stopped = 0
    for call, count in calls.items():
        for number in range(1, count + 1, 1 if call in CHANGING or os.environ.get("EVERY_CALL") else 3):
            answer = dying.run(f"{call}:error=EIO:when={number}")
            assert not answer["killed"]
            stopped += "stopped" in answer
            look(answer)
    assert stopped > 100


@pytest.mark.parametrize("injection", ["fsync:error=EIO:when=3", "rename:signal=SIGKILL:when=2"])
def test_one_of_each(dying, calls, injection):
    answer = dying.run(injection)
    assert answer["killed"] == ("SIGKILL" in injection)
    assert answer.get("stopped") == (None if answer["killed"] else "LogUnwritable")
    assert answer["acknowledged"] == []
    look(answer)


def test_killed_when_the_outbox_is_in_the_log_and_not_deleted(tmp_path):
    """`consortium/record.py`, between its steps 2 and 3: the next start appends nothing twice, and loses nothing."""
    Log.create(tmp_path / "log", SAMPLE.log_signer).close()
    code = f"""
import os, signal
from pathlib import Path
from audit.log import Log
from consortium.database import Database
from consortium.record import Recorder
from tests.adversarial.dying_log import lines
folder, (sample, before, (now, _)) = Path({str(tmp_path)!r}), lines()
log = Log.open(folder / "log", sample.log_signer)
recorder = Recorder(Database("sqlite:///" + str(folder / "state.db")), log)
recorder.record(*before)
real = log.append
log.append = lambda entries: (real(entries), os.kill(os.getpid(), signal.SIGKILL))
recorder.record(*now)
"""
    died = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT)
    assert died.returncode == -signal.SIGKILL
    log = Log.open(tmp_path / "log", SAMPLE.log_signer)
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    recorder = Recorder(database, log)
    recorder.record(*APPENDED[1])
    assert list(log.entries()) == WHOLE
    with database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(outbox)).scalar() == 0
    recorder.close()
    database.close()
    log.close()
    assert examine(tmp_path / "log", VERIFIER).entries == len(WHOLE)
