"""What the training child answers, read like a stranger's: every length, type and range is held against the study.

Memory for arrays is taken when the head says exactly what is waited for; numbers are looked at before they are used.
Anything else is a FrameRefused, and the child is ended. What an answer may lead to is small all the same: an update
that is clipped, encoded and masked like any other, and figures about as many patients as there are.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import structlog
from annotated_types import Ge, Le, Len
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from consortium.contract.global_model import GlobalModel, ModelRefused, ParameterLayout, parameter_count
from consortium.contract.layout import LOSS_PER_PATIENT_MAX
from consortium.contract.study import StudyFile
from privacy.lazy_numpy import np
from site_agent.class_tally import ClassScores
from site_agent.dice_tally import Overlaps
from site_agent.errors import TrainingFailed
from site_agent.mechanism_findings import CONFIDENCE, Finding, MechanismAudit
from site_agent.policy import Refuse
from site_agent.tally import Scores
from site_agent.training_child.frames import ArraySpec, FrameRefused, Head
from site_agent.training_child.pipe import Pipe
from site_agent.training_room import Equipped, JobFailed, LocalFigures, PrivateUpdate, Seen, Tally, Trained

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = structlog.get_logger(__name__)

SMALL_HEAD_BYTES = 65_536
"""Of every answer but the one that has the network's layout."""
NAMES_MAX, NAMES_BYTES_MAX = 65_536, 16 * 2**20
"""Identifiers in one answer; a longer list comes in several."""
PATIENTS_MAX, STEPS_MAX = 10_000_000, 10_000_000
PARAMETERS_MAX, VALUES_MAX = 100_000, 2**33
_BLOCK = 1 << 16

FACTS = {
    "device.chosen": ("device", "wanted"),
    "engine.tried": ("engine", "seconds", "memory_bytes", "reason"),
    "engine.chosen": ("engine", "outcome"),
    "client_algo.made": ("code",),
    "study.not_audited": ("reason",),
    "gradients.cut_smaller": ("engine", "device"),
    "training.confined": ("outcome", "reason"),
}
"""What the child may say in the agent's log, and with which fields."""

_FAILURES = {
    "TensorClipsRefused": (
        "aggregation.tensor_clips", "the study's clips do not fit the network as this site builds it"
    ),
    "PartsRefused": ("training", "the trainable or site_kept of the study does not fit the network built here"),
    "NoiseRefused": ("privacy.mechanism", "the noise that hospitals would share does not fit the study's ring"),
    **{
        name: ("site", f"this site cannot take part ({name})")
        for name in (
            "AdapterRefused", "BundleRefused", "ClientAlgoRefused", "DataInvalid", "DeviceMissing", "EngineUnsuited",
            "DistributionRefused", "LossRefused", "NetworkRefused", "TrainingFailed", "WeightsRefused",
        )
    },
}  # fmt: skip
_WITH_WORDS = {
    "AdapterRefused",
    "NoiseRefused",
    "PartsRefused",
    "TensorClipsRefused",
    "TrainingFailed",
    "WeightsRefused",
}
"""Errors whose words are about a study or a network (`refusals.is_about_others`)."""


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not one printable line")
    return text


_Count = Annotated[int, Ge(0), Le(PATIENTS_MAX)]
_Words = Annotated[str, Len(0, 300), AfterValidator(_line)]
_ParameterName = Annotated[str, Len(1, 500), AfterValidator(_line)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Seen(_Fields):
    patients: _Count
    test_patients: _Count
    validation_patients: _Count
    device: _Words
    parameters: Annotated[tuple[tuple[_ParameterName, tuple[int, ...]], ...], Len(1, PARAMETERS_MAX)]


class _Finding(_Fields):
    check: _Name
    passed: bool
    found: _Words
    allowed: _Words


class _Audit(_Fields):
    findings: Annotated[tuple[_Finding, ...], Len(0, 100)]
    figures: Annotated[tuple[tuple[_Name, float | None], ...], Len(0, 100)]


class _Equipped(_Fields):
    engine: _Name
    audit: _Audit | None


class _Trained(_Fields):
    noisy_steps: Annotated[int, Ge(0), Le(STEPS_MAX)]
    clipped_patients: Annotated[int, Ge(0), Le(STEPS_MAX * PATIENTS_MAX)]
    broken_patients: Annotated[int, Ge(0), Le(STEPS_MAX * PATIENTS_MAX)]


class _Names(_Fields):
    last: bool


class _Nothing(_Fields):
    pass


class _Step(_Fields):
    done: Annotated[int, Ge(0), Le(STEPS_MAX)]


class _Failed(_Fields):
    error: _Name
    place: Annotated[str, Field(pattern=r"^( at [A-Za-z0-9_.<>-]{1,100}:[0-9]{1,7})?$")]
    words: _Words


class _Fact(_Fields):
    event: str
    level: str
    fields: Annotated[dict[str, _Words | int | float | bool | None], Len(0, 10)]


_Some = TypeVar("_Some", bound=_Fields)


def _fields(kind: type[_Some], head: Head, arrays: tuple[ArraySpec, ...] | None = ()) -> _Some:
    """The fields of a head, whose arrays are exactly these; raises FrameRefused."""
    try:
        found = kind.model_validate_json(json.dumps(dict(head.fields)))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))[:80]
        raise FrameRefused(f"the answer {head.kind[:40]!r} is not what it should be at {where!r}") from None
    if arrays is not None and head.arrays != arrays:
        raise FrameRefused(f"the answer {head.kind[:40]!r} has other arrays than the study says")
    return found


def _filled(pipe: Pipe, spec: ArraySpec) -> NDArray[Any]:
    """An array of a body, in memory taken now."""
    values = np.empty(spec.shape, dtype=spec.dtype)
    if values.nbytes:
        pipe.receive_into(values.reshape(-1).data.cast("B"))
    return values


def _require_finite(values: NDArray[Any], what: str) -> None:
    flat = values.reshape(-1)
    if not all(bool(np.isfinite(flat[at : at + _BLOCK]).all()) for at in range(0, flat.size, _BLOCK)):
        raise FrameRefused(f"{what} holds a value that is not finite")


def _require_within(values: NDArray[Any], low: float, high: float, what: str) -> None:
    if values.size and not (values.min() >= low and values.max() <= high):  # NaN is not within anything
        raise FrameRefused(f"{what} holds a value that is not within {low} to {high}")


# --- what comes between a question and its answer ------------------------------------------------------------------


def read_step(head: Head) -> int:
    """How many steps of a round are done."""
    return _fields(_Step, head).done


def say_fact(head: Head) -> None:
    """Put a fact into the agent's log, if it is one of those that are said there; others are dropped."""
    fact = _fields(_Fact, head)
    known = FACTS.get(fact.event)
    if known is not None and fact.level in {"info", "warning", "error"}:
        said = {name: value for name, value in fact.fields.items() if name in known}
        getattr(log, fact.level)(fact.event, **said)


def failure_of(head: Head) -> Exception:
    """The error that a job ended with. The coordinator is told by a table, not by the child."""
    said = _fields(_Failed, head)
    words = said.words if said.error in _WITH_WORDS else ""
    if said.error == "TrainingFailed" and words:
        return TrainingFailed(words)
    rule, explanation = _FAILURES.get(
        said.error, ("failure", "something failed at this site; its operator can see what")
    )
    return JobFailed(said.error, said.place, words, Refuse(rule, explanation))


# --- answers -------------------------------------------------------------------------------------------------------


def read_nothing(head: Head) -> None:
    """That something is done."""
    _fields(_Nothing, head)


def read_seen(head: Head) -> Seen:
    """Counts, and the network's layout: sorted by name, of at most VALUES_MAX values."""
    said = _fields(_Seen, head)
    layout: ParameterLayout = said.parameters
    shapes = [shape for _, shape in layout]
    if any(len(shape) > 8 or any(side < 0 or side > VALUES_MAX for side in shape) for shape in shapes):
        raise FrameRefused("the network has a parameter of a shape that no parameter has")
    if [name for name, _ in layout] != sorted({name for name, _ in layout}) or parameter_count(layout) > VALUES_MAX:
        raise FrameRefused(f"the network's parameters are not sorted, each once, or more than {VALUES_MAX} values")
    if said.test_patients + said.validation_patients > said.patients:
        raise FrameRefused("more patients are set aside than there are")
    return Seen(
        patients=said.patients,
        test_patients=said.test_patients,
        validation_patients=said.validation_patients,
        parameters=layout,
        device=said.device,
    )


def read_names(pipe: Pipe, head: Head) -> tuple[list[str], bool]:
    """Some of the dataset's identifiers, and whether they are the last."""
    said = _fields(_Names, head, None)
    specs = {spec.name: spec for spec in head.arrays}
    lengths, text = specs.get("lengths"), specs.get("text")
    if len(specs) != 2 or lengths is None or text is None or (lengths.dtype, text.dtype) != ("<u4", "|u1"):
        raise FrameRefused("a list of identifiers has lengths and text")
    if (
        len(lengths.shape) != 1
        or len(text.shape) != 1
        or lengths.shape[0] > NAMES_MAX
        or text.shape[0] > NAMES_BYTES_MAX
    ):
        raise FrameRefused("a list of identifiers is longer than is allowed at once")
    found = {spec.name: _filled(pipe, spec) for spec in head.arrays}
    stops = np.cumsum(found["lengths"], dtype=np.int64)
    if (int(stops[-1]) if stops.size else 0) != text.shape[0]:
        raise FrameRefused("the lengths of identifiers do not add up")
    data, starts = found["text"].tobytes(), [0, *stops.tolist()]
    try:
        names = [data[start:stop].decode() for start, stop in zip(starts, stops.tolist(), strict=False)]
    except UnicodeDecodeError:
        raise FrameRefused("an identifier is no text") from None
    return names, said.last


def read_equipped(pipe: Pipe, head: Head, parameters: ParameterLayout) -> Equipped:
    """The engine, the audit, and the first model in the layout that was said before."""
    values = ArraySpec("first_model", "<f4", (parameter_count(parameters),))
    said = _fields(_Equipped, head, (values,))
    audit = said.audit
    found = None
    if audit is not None:
        findings = tuple(
            Finding(check=one.check, passed=one.passed, found=one.found, allowed=one.allowed) for one in audit.findings
        )
        found = MechanismAudit(findings=findings, figures=audit.figures, confidence=CONFIDENCE)
    vector = _filled(pipe, values)
    _require_finite(vector, "the first model")
    try:
        model = GlobalModel(parameters, vector)
    except ModelRefused as error:
        raise FrameRefused(str(error)) from None
    return Equipped(engine=said.engine, audit=found, first_model=model)


def update_spec(study: StudyFile, values: int) -> ArraySpec:
    """An update as the study has it: with shared noise a sum of gradients in whole steps, else a difference."""
    return ArraySpec("update", "<f8" if study.is_distributed else "<f4", (values,))


def read_trained(pipe: Pipe, head: Head, update: ArraySpec, steps_max: int) -> Trained:
    """An update of finite numbers, how many noisy steps it took, and figures that stay here."""
    steps = [spec for spec in head.arrays if spec.name == "sampled"]
    if len(steps) != 1 or steps[0].dtype != "<i8" or len(steps[0].shape) != 1 or steps[0].shape[0] > steps_max:
        raise FrameRefused(f"figures of more than {steps_max} steps, or none at all")
    said = _fields(_Trained, head, (update, steps[0]))
    values: PrivateUpdate = _filled(pipe, update)
    sampled = _filled(pipe, steps[0])
    _require_finite(values, "the update")
    _require_within(sampled, 0, PATIENTS_MAX, "a count of patients")
    local = LocalFigures(
        sampled_patients=tuple(sampled.tolist()),
        clipped_patients=said.clipped_patients,
        broken_patients=said.broken_patients,
    )
    return Trained(update=values, noisy_steps=said.noisy_steps, local=local)


def measured_specs(study: StudyFile, patients: int) -> tuple[ArraySpec, ...]:
    """What figures of so many patients look like, by the study's label."""
    outputs = study.data.outputs
    if study.data.label_shape:
        return (ArraySpec("dice", "<f8", (patients, outputs)), ArraySpec("losses", "<f8", (patients,)))
    if outputs > 1:
        return (ArraySpec("probabilities", "<f8", (patients, outputs)), ArraySpec("labels", "<i8", (patients,)))
    cells = len(study.evaluation.subgroups or ())
    return (
        ArraySpec("scores", "<f8", (patients,)),
        ArraySpec("positive", "|u1", (patients,)),
        ArraySpec("groups", "<i8", (patients, cells)),
    )


def read_measured(pipe: Pipe, head: Head, study: StudyFile, patients: int) -> Tally:
    """Figures of so many test patients, each within its range."""
    specs = measured_specs(study, patients)
    _fields(_Nothing, head, specs)
    found = {spec.name: _filled(pipe, spec) for spec in specs}
    outputs = study.data.outputs
    if "dice" in found:
        defined = found["dice"][~np.isnan(found["dice"])]
        _require_within(defined, 0, 1, "a Dice score")
        _require_within(found["losses"], 0, LOSS_PER_PATIENT_MAX, "a loss")
        return Overlaps(dice=found["dice"], losses=found["losses"])
    if "probabilities" in found:
        _require_within(found["probabilities"], 0, 1, "a probability")
        _require_within(found["labels"], 0, outputs - 1, "a class")
        return ClassScores(probabilities=found["probabilities"], labels=found["labels"])
    _require_within(found["scores"], 0, 1, "a score")
    _require_within(found["positive"], 0, 1, "a label")
    for place, subgroup in enumerate(study.evaluation.subgroups or ()):
        _require_within(found["groups"][:, place], -1, subgroup.cells - 1, "a cell")
    return Scores(scores=found["scores"], positive=found["positive"].astype(np.bool_), groups=found["groups"])


_WHOLE_NAME = re.compile(r"[a-z_]{1,20}")


def kind_shown(head: Head) -> str:
    """A kind that was not waited for, fit for a log."""
    return head.kind if _WHOLE_NAME.fullmatch(head.kind) else "(another)"
