"""Whether enough hospitals have cosigned the log for what somebody wants to do with it; waited for, not for long."""

import time

from audit.checkpoint import SignedCheckpoint
from audit.cosignature import WitnessKey
from audit.policy import policy_for
from consortium.contract.study import StudyFile
from consortium.coordinator import Coordinator
from consortium.errors import NotWitnessed

WAIT_S, LOOK_S = 20.0, 0.1
"""Agents that are connected cosign within a second or two."""


def require_quorum(coordinator: Coordinator, study: StudyFile, size: int) -> SignedCheckpoint:
    """A checkpoint over at least `size` entries with the study's quorum; raises NotWitnessed."""
    found = await_quorum(coordinator, study, size)
    if found is not None and found.checkpoint.size >= size:
        return found
    rooms, roster = coordinator.rooms, study.sites.roster
    signed = [site for site in roster if rooms.witnesses.covered_by(site) >= size]
    raise NotWitnessed(
        f"{study.id}: {study.cosignatures_needed} of its hospitals must have cosigned the first {size} entries of the"
        f" log{_and_outside(study)}, and {', '.join(signed) or 'none'} did"
    )


def await_quorum(coordinator: Coordinator, study: StudyFile, size: int) -> SignedCheckpoint | None:
    """The largest checkpoint with the study's quorum; a serving coordinator waits for one over `size` entries."""
    deadline = time.monotonic() + (WAIT_S if coordinator.serving else 0.0)
    while True:
        found = coordinator.rooms.witnesses.quorum_checkpoint(
            study.sites.roster, study.cosignatures_needed, outside_keys(study)
        )
        if (found is not None and found.checkpoint.size >= size) or time.monotonic() >= deadline:
            return found
        time.sleep(LOOK_S)


def policy_of(coordinator: Coordinator, study: StudyFile) -> bytes:
    """The policy an auditor should have from a hospital, as this coordinator knows the keys."""
    known = coordinator.rooms.witnesses.keys()
    keys: dict[str, WitnessKey] = {site: known[site] for site in study.sites.roster if site in known}
    needed = study.cosignatures_needed
    vkey = coordinator.rooms.recorder.written.verifier.vkey()
    return policy_for(vkey, keys, needed=min(needed, len(keys)), outside=outside_keys(study))


def outside_keys(study: StudyFile) -> tuple[WitnessKey, ...]:
    """Witnesses that are no hospitals, as the study names them."""
    return tuple(WitnessKey.from_vkey(vkey) for vkey in (study.witnesses.outside if study.witnesses else ()))


def _and_outside(study: StudyFile) -> str:
    names = [key.name for key in outside_keys(study)]
    return f", and {', '.join(names)} too" if names else ""
