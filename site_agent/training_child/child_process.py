"""The agent's side of a training child: start it, ask it, watch the time, believe nothing, end it.

One process for one study, from when the study is prepared until it ends here. It is started with nothing of the
agent's: a clean environment, no open file but its end of the pipe, a process group of its own. It confines itself
(`sandbox.py`), and ends when the agent does: the kernel kills it, and its end of the pipe closes.

| what happens to it | what the agent does |
|---|---|
| it ends, crashes, is killed | RoomLost: a line in the log; the study is prepared anew at the next invitation |
| it answers what is no answer | it is killed, and then the same |
| it takes longer than site.yaml allows | the same |

What it prints goes into no log: the last of it is kept in a file in the agent's home if the process ends badly.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import structlog

from consortium.contract.global_model import GlobalModel, ParameterLayout, parameter_count
from consortium.contract.private_files import write_private
from consortium.contract.server_optimizer import awaits_test
from site_agent.processes import started_by_torchrun
from site_agent.progress import StepDone
from site_agent.sandbox import child_environment
from site_agent.training_child import answers
from site_agent.training_child.frames import HEAD_BYTES_MAX, ArraySpec, FrameRefused, Head
from site_agent.training_child.orders import noise_fields, order_fields, readable_by, writable_by
from site_agent.training_child.pipe import Pipe, PipeClosed, PipeSilent
from site_agent.training_room import Equipped, Order, RoomLost, RoundJob, Seen, Tally, Trained, TrainingRoom
from site_agent.training_spec import PlainSpec, TrainingSpec

log = structlog.get_logger(__name__)

COMMAND = (sys.executable, "-I", "-m", "site_agent.training_child")
IDENTIFIERS_MAX = 100_000_000
STEPS_MAX = 1_000_000
FINISH_S = 10.0
"""How long a hospital's own class may take to its end; after that the process is killed."""
REAP_S = 30.0
LAST_WORDS_BYTES = 65_536
"""Of what the process printed last, this much is kept."""
_SMALL = answers.SMALL_HEAD_BYTES
_NOT_STARTED = "preparing the study"

_Read = TypeVar("_Read")


class ChildProcess:
    """`training_room.TrainingRoom` in a process of its own. Mutable: it has the process.

    Args:
        order: What the process is told.
        command: What is started, with the number of its end of the pipe behind it.
    """

    def __init__(self, order: Order, command: tuple[str, ...] = COMMAND) -> None:
        self._order = order
        self._command = command
        self._turn = threading.Lock()  # one question at a time
        self._ending = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None
        self._printed: _Tail | None = None
        self._lost: RoomLost | None = None
        self._parameters: ParameterLayout = ()
        self._seen: Seen | None = None
        self._doing = _NOT_STARTED

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def lost(self) -> RoomLost | None:
        """See `TrainingRoom`."""
        if self._lost is None and self._process is not None and self._process.poll() is not None:
            self._gone()
            self._close_if_idle()
        return self._lost

    # --- what is asked ---------------------------------------------------------------------------------------------

    def look(self) -> Seen:
        """See `TrainingRoom`; the process is started by it."""
        seen = self._ask("look", {}, "looked", answers.read_seen, doing=_NOT_STARTED, head_max=HEAD_BYTES_MAX)
        self._seen, self._parameters = seen, seen.parameters
        return seen

    def identifiers(self) -> Iterator[str]:
        """See `TrainingRoom`."""
        count, last = 0, False
        while not last:
            names, last = self._ask(
                "names", {}, "named", lambda head: answers.read_names(self._there(), head),
                doing="reading who is in the dataset", body_max=answers.NAMES_BYTES_MAX + 4 * answers.NAMES_MAX,
            )  # fmt: skip
            count += len(names)
            if count > IDENTIFIERS_MAX:
                raise self._gone(f"it named more than {IDENTIFIERS_MAX} patients' records")
            yield from names

    def equip(self, spec: TrainingSpec | PlainSpec) -> Equipped:
        """See `TrainingRoom`."""
        return self._ask(
            "equip", noise_fields(spec), "equipped",
            lambda head: answers.read_equipped(self._there(), head, self._parameters),
            doing=_NOT_STARTED, body_max=4 * self._values,
        )  # fmt: skip

    def train(self, job: RoundJob, step_done: StepDone) -> Trained:
        """See `TrainingRoom`."""
        update = answers.update_spec(self._order.study, self._values)
        fields = {"round": job.round, "model": job.model.digest(), "released": sorted(job.released)}
        return self._ask(
            "train", fields, "trained",
            lambda head: answers.read_trained(self._there(), head, update, STEPS_MAX),
            doing=f"training round {job.round}", body_max=update.size_bytes + 8 * STEPS_MAX, step_done=step_done,
        )  # fmt: skip

    def measure(self, round_number: int, model: GlobalModel) -> Tally:
        """See `TrainingRoom`."""
        study, patients = self._order.study, self._measured(model)
        return self._ask(
            "measure", {"round": round_number, "model": model.digest()}, "measured",
            lambda head: answers.read_measured(self._there(), head, study, patients),
            doing=f"measuring the model of round {round_number}",
            body_max=sum(spec.size_bytes for spec in answers.measured_specs(study, patients)),
        )  # fmt: skip

    def finish(self) -> None:
        """See `TrainingRoom`. Only a hospital's own class is told, and waited for, for a while."""
        if self._order.client_algo is not None and self._lost is None and self._pipe is not None:
            with contextlib.suppress(Exception):  # whatever it is, the process ends now
                if self._turn.locked():
                    self._pipe.send("abort", {})
                if self._turn.acquire(timeout=FINISH_S):
                    self._turn.release()
                    self._ask("finish", {}, "finished", answers.read_nothing, doing="ending", limit_s=FINISH_S)
        self.stop()

    def stop(self) -> None:
        """See `TrainingRoom`."""
        with self._ending:
            if self._lost is None:
                self._lost = RoomLost(self._doing, "it was stopped by the agent", "Nothing needs to be done.")
            self._end_process()
        self._close_if_idle()

    # --- how -------------------------------------------------------------------------------------------------------

    @property
    def _values(self) -> int:
        return parameter_count(self._parameters)

    def _measured(self, model: GlobalModel) -> int:
        """On how many patients a model is measured, as `Cohort.measured` chooses them."""
        assert self._seen is not None  # nothing is measured before `look`
        chosen = awaits_test(self._order.study, model.state)
        return (
            self._seen.validation_patients
            if self._seen.validation_patients and not chosen
            else self._seen.test_patients
        )

    def _ask(
        self,
        kind: str,
        fields: dict[str, Any],
        answer: str,
        read: Callable[[Head], _Read],
        *,
        doing: str,
        head_max: int = _SMALL,
        body_max: int = 0,
        step_done: StepDone | None = None,
        limit_s: float | None = None,
    ) -> _Read:
        """One question, and its answer; raises RoomLost, or what the job ended with."""
        with self._turn:
            self._doing = doing
            limit_s = self._order.limits.hours * 3600 if limit_s is None else limit_s
            try:
                pipe = self._started()
                pipe.until(time.monotonic() + limit_s)
                pipe.send(kind, fields)
                while True:
                    head = pipe.receive_head(head_max=head_max, body_max=body_max)
                    if head.kind == answer:
                        return read(head)
                    _hear(head, step_done)
            except PipeClosed:
                raise self._gone() from None
            except PipeSilent:
                raise self._gone(f"it took longer than the {limit_s / 3600:g} hours that site.yaml allows") from None
            except FrameRefused as error:
                raise self._gone(f"what it answered is no answer: {error}") from None
            finally:
                self._doing = "waiting for the next round"
                if self._lost is not None and self._pipe is not None:
                    self._pipe.close()

    def _close_if_idle(self) -> None:
        """Give the pipe back; a thread that waits for an answer does it itself, for the other end is gone."""
        if self._pipe is not None and self._turn.acquire(blocking=False):
            self._pipe.close()
            self._turn.release()

    def _there(self) -> Pipe:
        """The pipe, in the middle of a question."""
        assert self._pipe is not None  # a question is asked over it
        return self._pipe

    def _started(self) -> Pipe:
        if self._lost is not None:
            raise self._lost
        if self._pipe is None:
            self._start()
        return self._there()

    def _start(self) -> None:
        order = self._order
        shutil.rmtree(order.scratch, ignore_errors=True)  # of an agent that was killed
        writable = writable_by(order)
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - this program's own interpreter, and nothing from outside
                (*self._command, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=child_environment(os.environ, order.scratch),
                cwd=order.scratch,
                start_new_session=True,
            )
        with self._ending:
            assert process.stdout is not None  # asked for
            self._process, self._pipe, self._printed = process, Pipe(ours), _Tail(process.stdout)
            if self._lost is not None:  # stopped meanwhile
                self._end_process()
                raise self._lost
        memory_gib = order.limits.memory_gib
        start = {
            "readable": [str(path) for path in readable_by(order)],
            "writable": [str(path) for path in writable],
            "memory_bytes": None if memory_gib is None else int(memory_gib * 2**30),
            "gpu": order.device != "cpu",
            "parent": os.getpid(),
        }
        self._pipe.send("confine", start)
        document = memoryview(order.study.document())
        self._pipe.send("open", order_fields(order), [(ArraySpec("document", "|u1", (len(document),)), document)])

    def _gone(self, why: str | None = None) -> RoomLost:
        """What became of the process, which is over now; its last words are kept."""
        with self._ending:
            if self._lost is not None:
                return self._lost
            process = self._process
            ended = None
            if process is not None and why is None:  # its end of the pipe is closed: it is ending, or hangs
                with contextlib.suppress(subprocess.TimeoutExpired):
                    ended = process.wait(timeout=REAP_S)
            self._end_process()
            how = why or _how_it_ended(ended)
            kept = self._keep_last_words()
            advice = f"Its last words are in {kept}." if kept is not None else "It said nothing."
            self._lost = RoomLost(self._doing, how, f"{advice} {_WHAT_NEXT}")
            return self._lost

    def _end_process(self) -> None:
        """Kill what is left of it, and take its scratch folder away."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a group of its own, whose leader is not waited for yet
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=REAP_S)
        if self._printed is not None:
            self._printed.join()
        shutil.rmtree(self._order.scratch, ignore_errors=True)

    def _keep_last_words(self) -> Path | None:
        said = b"" if self._printed is None else self._printed.said
        if not said:
            return None
        path = self._order.scratch.with_name(f"{self._order.study.id}.last-words.txt")
        try:
            write_private(path, said, replace=True)
        except OSError:
            return None
        return path


_WHAT_NEXT = (
    "The study is prepared anew at the next invitation. If it happens again: less memory for one process than it needs "
    "(training_child in site.yaml, or the machine), a fault in a library, or in a class of this hospital's own."
)


def child_room(order: Order) -> TrainingRoom:
    """Where an agent has a study computed: in a process of its own.

    Under torchrun this process and its helpers compute together already, and rank 0 of them is the agent (ADR 40).
    """
    if not started_by_torchrun():
        return ChildProcess(order)
    from site_agent.room_in_process import RoomInProcess  # noqa: PLC0415 - torch, which is loaded here

    log.warning("training.in_process", reason="torchrun started several processes, and the agent is one of them")
    return RoomInProcess(order)


def _how_it_ended(status: int | None) -> str:
    """A process's end in words: what the system says of it."""
    if status is None:
        return "it closed the pipe and did not end; it was killed"
    if status >= 0:
        return f"it ended with exit status {status}"
    number = -status
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    meaning: dict[int, str] = {
        signal.SIGKILL: ": somebody ended it, or the machine ran out of memory",
        signal.SIGSEGV: ": a fault in a library",
        signal.SIGBUS: ": a fault in a library, or a full disk",
        signal.SIGABRT: ": a fault in a library, or no memory left",
        signal.SIGSYS: ": it asked the system for something that training does not need",
    }
    return f"{name}{meaning.get(number, '')}"


def _hear(head: Head, step_done: StepDone | None) -> None:
    """What comes before an answer; raises the error that the job ended with, and FrameRefused for anything else."""
    match head.kind:
        case "fact":
            answers.say_fact(head)
        case "step" if step_done is not None:
            step_done(answers.read_step(head))
        case "failed":
            raise answers.failure_of(head)
        case _:
            raise FrameRefused(f"an answer of the kind {answers.kind_shown(head)!r} was not waited for")


class _Tail:
    """The last of what a process prints, read so that it never waits for a reader. Mutable."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> bytes:
        """At most LAST_WORDS_BYTES."""
        return bytes(self._kept[-LAST_WORDS_BYTES:])

    def join(self) -> None:
        """Wait until all is read; the process has ended."""
        if self._reader is not threading.current_thread():
            self._reader.join(timeout=REAP_S)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._stream:
            while data := os.read(self._stream.fileno(), 65_536):
                self._kept += data
                del self._kept[:-LAST_WORDS_BYTES]
