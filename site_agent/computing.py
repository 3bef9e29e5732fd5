"""Where this hospital computes, and with which engine: tried on the network before training (torch)."""

from typing import TYPE_CHECKING

import structlog

from site_agent.training_spec import TrainingSpec

if TYPE_CHECKING:
    from site_agent.device import Compute, Precision
    from site_agent.gradients.admission import EngineChoice, Trial

log = structlog.get_logger(__name__)

RECORDS_TRIED_MAX = 8
"""Records of a patient, or patches, on which engines are tried; one patient's records are never split."""


def compute_of(device: str, precision: "Precision") -> "Compute":
    """Where this hospital computes and in what precision, said in its log; raises DeviceMissing."""
    from site_agent.device import compute_for  # noqa: PLC0415 - torch

    compute = compute_for(device, precision)
    log.info("device.chosen", device=compute.words, wanted=device)
    return compute


def engine_for(spec: TrainingSpec, wanted: str, compute: "Compute") -> "EngineChoice":
    """The engine for a study on this machine, tried on its network before training; raises EngineUnsuited.

    What was tried goes to the hospital's own log: times and memory are those of made-up records.
    """
    trial = trial_of(spec, wanted, compute)
    for tried in trial.candidates:
        log.info("engine.tried", engine=tried.engine, seconds=tried.seconds, memory_bytes=tried.peak_bytes,
                 reason=tried.unsuited or None)  # fmt: skip
    log.info("engine.chosen", engine=trial.choice.name, outcome="pinned" if trial.pinned else "fastest")
    return trial.choice


def trial_of(spec: TrainingSpec, wanted: str, compute: "Compute") -> "Trial":
    """What engines were tried for a study, and the one that was chosen; raises EngineUnsuited."""
    from site_agent.gradients.admission import chosen_for  # noqa: PLC0415 - torch
    from site_agent.gradients.workload import Workload  # noqa: PLC0415 - torch

    workload = Workload.of(
        spec.network.input_shape,
        expected_patients=spec.privacy.denominator,
        records_each=min(spec.privacy.max_records_per_patient * spec.views_per_record, RECORDS_TRIED_MAX),
        label_shape=spec.network.label_shape,
        classes=max(2, spec.network.outputs),
        device=compute.device,
        steps=spec.privacy.mechanism.steps,
    )
    return chosen_for(spec.network, workload, None if wanted == "auto" else wanted, compute)
