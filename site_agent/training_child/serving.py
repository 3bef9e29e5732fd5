"""The training child at work: answers the agent's questions one after the other (torch).

Another thread reads the pipe, so that an agent that is gone, or that has the training broken off, is heard while
something is computed.
"""

import os
import queue
import threading
import time
from collections.abc import Iterator, MutableMapping
from itertools import islice
from typing import Any, NoReturn

import numpy as np
import structlog
from numpy.typing import NDArray

from consortium.contract.global_model import GlobalModel, ModelRefused
from consortium.contract.names import Digest
from site_agent.dice_tally import Overlaps
from site_agent.error_place import kind_and_place
from site_agent.errors import TrainingFailed
from site_agent.model_folder import ModelFolder
from site_agent.room_in_process import RoomInProcess
from site_agent.tally import Scores
from site_agent.training_child.answers import FACTS, NAMES_BYTES_MAX, NAMES_MAX
from site_agent.training_child.frames import ArraySpec, FrameRefused, Head
from site_agent.training_child.orders import spec_from
from site_agent.training_child.pipe import Pipe, PipeClosed
from site_agent.training_room import Order, RoundJob

STEP_EVERY_S = 0.25
"""How often the agent is told of steps: rounds of milliseconds say nothing."""
WORDS_MAX = 300
NAME_BYTES_MAX = 2**20
"""Of one identifier."""


class Speaker:
    """The end on which this process speaks: its answers, and its log. Used from several threads."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._turn = threading.Lock()

    def answer(self, kind: str, fields: dict[str, Any] | None = None, **arrays: NDArray[Any]) -> None:
        """Send an answer; arrays are sent from where they lie, if they lie in one piece."""
        parts = []
        for name, values in arrays.items():
            dtype = np.dtype("|u1") if values.dtype == np.bool_ else values.dtype.newbyteorder("<")
            piece = np.ascontiguousarray(values, dtype=dtype)
            data = memoryview(b"") if not piece.size else piece.reshape(-1).data.cast("B")
            parts.append((ArraySpec(name, dtype.str, tuple(values.shape)), data))
        with self._turn:
            self._pipe.send(kind, fields or {}, parts)

    def fact(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """A processor of structlog: a fact that the agent says in its log, and of which nothing is printed here."""
        name = str(event.pop("event", ""))
        if name in FACTS:
            said = {key: _short(value) for key, value in event.items() if key in FACTS[name]}
            self.answer("fact", {"event": name, "level": method, "fields": said})
        raise structlog.DropEvent


def serve(pipe: Pipe, speaker: Speaker, order: Order) -> None:
    """Answer until the agent is gone."""
    structlog.configure(processors=[speaker.fact])
    room = RoomInProcess(order)
    questions: queue.SimpleQueue[Head] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, room, questions), daemon=True).start()
    answering = _Answering(room, speaker, order)
    while True:
        question = questions.get()
        try:
            answering.to(question)
        except PipeClosed:
            return
        except Exception as error:  # noqa: BLE001 - of any library; its words may quote patients' data
            speaker.answer("failed", failure_fields(error))


def failure_fields(error: Exception) -> dict[str, Any]:
    """What is said of an error: its kind and place, and of those about a study or a network the words."""
    kind, place = type(error).__name__, kind_and_place(error).removeprefix(type(error).__name__)
    words = "".join(character if character.isprintable() else " " for character in str(error))
    return {"error": kind, "place": place, "words": words[:WORDS_MAX]}


def _listen(pipe: Pipe, room: RoomInProcess, questions: "queue.SimpleQueue[Head]") -> None:
    try:
        while True:
            head = pipe.receive_head(body_max=0)
            if head.kind == "abort":
                room.abort()
            else:
                questions.put(head)
    except (PipeClosed, FrameRefused):
        os._exit(0)  # whatever is being computed: nobody is there any more who could want it


class _Answering:
    """One question, one answer. Mutable: it remembers the last model, and how far identifiers were read."""

    def __init__(self, room: RoomInProcess, speaker: Speaker, order: Order) -> None:
        self._room = room
        self._speaker = speaker
        self._order = order
        self._models = ModelFolder(order.models)
        self._model: GlobalModel | None = None
        self._names: Iterator[str] | None = None

    def to(self, question: Head) -> None:
        """Answer a question; raises what the room raises."""
        fields = question.fields
        match question.kind:
            case "look":
                seen = self._room.look()
                said = {"patients": seen.patients, "test_patients": seen.test_patients}
                layout = [[name, list(shape)] for name, shape in seen.parameters]
                more = {"validation_patients": seen.validation_patients, "device": seen.device, "parameters": layout}
                self._speaker.answer("looked", said | more)
            case "names":
                self._say_names()
            case "equip":
                self._equip(fields)
            case "train":
                self._train(fields)
            case "measure":
                self._measure(fields)
            case "finish":
                self._room.finish()
                self._speaker.answer("finished")
            case _:
                raise TrainingFailed("the training process was asked for something it does not know")

    def _say_names(self) -> None:
        if self._names is None:
            self._names = self._room.identifiers()
        some: list[bytes] = []
        left = NAMES_BYTES_MAX
        for name in islice(self._names, NAMES_MAX):
            data = name.encode()
            if len(data) > NAME_BYTES_MAX:
                raise TrainingFailed(f"an identifier has more than {NAME_BYTES_MAX} bytes")
            some.append(data)
            left -= len(data)
            if left < NAME_BYTES_MAX:
                break
        last = not some
        if last:
            self._names = None
        lengths = np.array([len(name) for name in some], dtype="<u4")
        text = np.frombuffer(b"".join(some), dtype="|u1")
        self._speaker.answer("named", {"last": last}, lengths=lengths, text=text)

    def _equip(self, fields: Any) -> None:
        equipped = self._room.equip(spec_from(self._order, fields))
        audit = None
        if equipped.audit is not None:
            findings = [
                {"check": one.check, "passed": one.passed, "found": _short(one.found), "allowed": _short(one.allowed)}
                for one in equipped.audit.findings
            ]
            audit = {"findings": findings, "figures": [list(pair) for pair in equipped.audit.figures]}
        said = {"engine": equipped.engine, "audit": audit}
        self._speaker.answer("equipped", said, first_model=equipped.first_model.vector)

    def _train(self, fields: Any) -> None:
        job = RoundJob(
            round=fields["round"], model=self._model_of(fields["model"]), released=frozenset(fields["released"])
        )
        trained = self._room.train(job, self._steps())
        local = trained.local
        said = {
            "noisy_steps": trained.noisy_steps,
            "clipped_patients": int(local.clipped_patients),
            "broken_patients": int(local.broken_patients),
        }
        sampled = np.array(local.sampled_patients, dtype="<i8")
        self._speaker.answer("trained", said, update=trained.update, sampled=sampled)

    def _measure(self, fields: Any) -> None:
        tally = self._room.measure(fields["round"], self._model_of(fields["model"]))
        if isinstance(tally, Scores):
            arrays = {"scores": tally.scores, "positive": tally.positive, "groups": tally.groups}
        elif isinstance(tally, Overlaps):
            arrays = {"dice": tally.dice, "losses": tally.losses}
        else:
            arrays = {"probabilities": tally.probabilities, "labels": tally.labels}
        self._speaker.answer("measured", None, **arrays)

    def _steps(self) -> "Steps":
        return Steps(self._speaker)

    def _model_of(self, digest: str) -> GlobalModel:
        if self._model is None or self._model.digest() != digest:
            try:
                model = GlobalModel.open(self._models.path(Digest(digest)))
            except (OSError, ModelRefused) as error:
                raise TrainingFailed("the round's global model is not there any more") from error
            if model.digest() != digest:
                raise TrainingFailed("the round's global model is another one than it was")
            self._model = model
        return self._model


class Steps:
    """Tells the agent of a round's steps, now and then."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._said = time.monotonic()

    def __call__(self, done: int) -> None:
        """So many steps are done."""
        now = time.monotonic()
        if now - self._said >= STEP_EVERY_S:
            self._said = now
            self._speaker.answer("step", {"done": done})


def _short(value: Any) -> Any:
    """A value of a fact, as JSON has it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return "".join(character if character.isprintable() else " " for character in str(value))[:WORDS_MAX]
