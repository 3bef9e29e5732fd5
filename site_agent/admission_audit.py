"""The mechanism audited before a study trains here, once while this process lives, and as an entry for the log.

Failing it, the hospital does not take part: what was measured is signed for the log, and the study is declined.
"""

from functools import partial

import structlog

from privacy.errors import LocalProtocolError
from site_agent.gradients.admission import EngineChoice
from site_agent.mechanism_audit import AT_ADMISSION, Effort, NotMeasurable, audit_mechanism
from site_agent.mechanism_findings import MechanismAudit
from site_agent.trainer import DpTrainer
from site_agent.training_spec import TrainingSpec

log = structlog.get_logger(__name__)

PARAMETERS_MAX = 200_000
"""A larger network is not audited at admission, where it would take minutes of noise: `audit-privacy` does it."""

_AUDITED: dict[str, MechanismAudit | None] = {}


def audited_at_admission(spec: TrainingSpec, engine: EngineChoice, *, parameters: int) -> MechanismAudit | None:
    """The short audit before a study trains; None for a network of more than PARAMETERS_MAX parameters."""
    if parameters > PARAMETERS_MAX:
        log.warning("study.not_audited", reason=f"{parameters} parameters, of at most {PARAMETERS_MAX} at admission")
        return None
    return audited(spec, engine, AT_ADMISSION)


def audited(spec: TrainingSpec, engine: EngineChoice, effort: Effort) -> MechanismAudit | None:
    """What the real trainer does on probes; None where this network and study cannot be measured.

    The same spec, engine and effort are measured once: the result is about code and constants, not about time.
    """
    network = spec.network
    built = (network.network, dict(network.args), network.input_shape, network.trainable)
    key = repr((built, spec.privacy, engine, effort))
    if key not in _AUDITED:
        try:
            _AUDITED[key] = audit_mechanism(spec, partial(DpTrainer, engine=engine), effort)
        except (NotMeasurable, LocalProtocolError) as error:
            log.warning("study.not_audited", reason=str(error) or type(error).__name__)
            _AUDITED[key] = None
    return _AUDITED[key]
