"""Where a study is computed at a hospital, and what goes in and comes out: values only, no torch, no pandas.

The agent keeps keys, ledger, log and masks and decides; everything that reads patients' data or needs torch happens in
a room. The agent's is a process of its own (`training_child/`), so that what goes wrong there takes nothing with it;
tests and measurements have one in the same process (`room_in_process.py`). An agent believes neither: what a room
answers is held against the study before it is used.

    look         the cohort is read, the network built
    identifiers  who is in the dataset, for the ledger's keyed hashes
    equip        the trainer is made, its engine chosen, its mechanism audited
    train, measure, ...    round after round
    finish or stop

One call at a time is carried out; a second one waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from consortium.contract.global_model import GlobalModel, ParameterLayout
from consortium.contract.names import SiteId
from consortium.contract.study import StudyFile
from privacy.lazy_numpy import np
from site_agent.class_tally import ClassScores
from site_agent.datasets import Dataset
from site_agent.dice_tally import Overlaps
from site_agent.errors import SiteError
from site_agent.image_cache import ImageCache
from site_agent.mechanism_findings import MechanismAudit
from site_agent.policy import Refuse
from site_agent.progress import StepDone
from site_agent.site_file import ClientAlgoFile, TrainingChild
from site_agent.tally import Scores
from site_agent.training_spec import PlainSpec, TrainingSpec, WeightFiles
from site_agent.withdrawals import NOBODY, Withdrawn

if TYPE_CHECKING:
    from numpy.typing import NDArray

PrivateUpdate: TypeAlias = "NDArray[np.float32] | NDArray[np.float64]"
"""A model difference; with shared noise the noisy sum of gradients, in whole steps of the update's lane."""

Tally: TypeAlias = Scores | ClassScores | Overlaps
"""What one hospital's test patients come to, by the label: binary, of several classes, or a mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that a room is told about a study and this hospital. No key, no secret, no name of a person."""

    study: StudyFile
    dataset: Dataset
    site: SiteId
    device: str
    precision: str
    engine: str
    weights: WeightFiles  # those the study names, and no others
    client_algo: ClientAlgoFile | None  # the one the study names
    images: ImageCache
    carried: Path  # the folder for what this hospital carries from round to round
    models: Path  # the folder of global models, by digest
    scratch: Path  # a folder for whatever a library writes; it goes with the room
    limits: TrainingChild
    withdrawn: Withdrawn = NOBODY  # who is in no cohort; its key recognises them and does nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was found: counts and shapes, no patient's values."""

    patients: int  # with records that fit the study
    test_patients: int
    validation_patients: int  # 0 in a study that chooses no model by them
    parameters: ParameterLayout
    device: str  # in words, with the precision


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Equipped:
    """A trainer stands ready."""

    engine: str
    audit: MechanismAudit | None  # None where it cannot be measured
    first_model: GlobalModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFigures:
    """What the hospital may look at and nobody else: these numbers carry no noise. They print as nothing."""

    sampled_patients: tuple[int, ...]  # of each step
    clipped_patients: int  # over all steps
    broken_patients: int  # over all steps: a record gave a gradient that is not finite

    @property
    def clipped_fraction(self) -> float:
        """Of the contributions made, how many were shortened; 0 if there were none."""
        return self.clipped_patients / max(1, sum(self.sampled_patients))

    def __repr__(self) -> str:
        return "LocalFigures()"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundJob:
    """One round's training."""

    round: int
    model: GlobalModel  # it lies in `Order.models` too
    released: frozenset[int] = frozenset()  # rounds for whose sum this hospital released shares; of studies that carry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What one round's training gave. It prints without its values."""

    update: PrivateUpdate = field(repr=False)
    noisy_steps: int  # executed, as the accountant's hook counted them; 0 without differential privacy
    local: LocalFigures


class TrainingRoom(Protocol):
    """One study at one hospital. Its methods block, and may be called from any thread.

    Any of them may raise RoomLost.
    """

    @property
    def lost(self) -> RoomLost | None:
        """Why nothing can be computed here any more; None while it can. Asking does not block."""

    def look(self) -> Seen:
        """Read the cohort and build the network; raises DataInvalid, NetworkRefused and what else stands against it."""

    def identifiers(self) -> Iterator[str]:
        """Who is in the dataset, record by record (`patient_marks.identifiers_in`)."""

    def equip(self, spec: TrainingSpec | PlainSpec) -> Equipped:
        """Make the trainer that `spec` says, after `look`; raises EngineUnsuited, TrainingFailed and others."""

    def train(self, job: RoundJob, step_done: StepDone) -> Trained:
        """Train one round. What is carried to later rounds is on disk when this returns; raises TrainingFailed."""

    def measure(self, round_number: int, model: GlobalModel) -> Tally:
        """A global model on the patients that a round measures it on; raises TrainingFailed."""

    def finish(self) -> None:
        """The study is over here: tell a hospital's own class, then stop. Raises nothing."""

    def stop(self) -> None:
        """End at once, whatever is going on. Raises nothing; may be called again."""


Rooms: TypeAlias = Callable[[Order], TrainingRoom]
"""Makes a room; nothing is read or started before `look`."""


class JobFailed(SiteError):
    """Something could not be computed in a room elsewhere; what kind of error it was is known, and where."""

    def __init__(self, kind: str, place: str, words: str, refusal: Refuse) -> None:
        super().__init__(words or f"{kind} in the training process")
        self.kind_and_place = f"{kind}{place}"
        self.has_words = bool(words)
        self.refusal = refusal  # what the coordinator is told: nothing of it was said by the room


class RoomLost(SiteError):
    """The room is gone, with all it held. Its words are about a process, for this hospital's operator."""

    def __init__(self, doing: str, how: str, advice: str) -> None:
        super().__init__(f"the training process is gone ({how}) while it was {doing}")
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice
