"""One attempt in one process: the coordinator's machine and every hospital's, with nothing between them but a queue.

The machines are those of the real thing (`training_round.py`, `participation.py`), keys and masks included; there is no
network, no clock, no disk and no log. For `consortium simulate` only.
"""

import hashlib
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from consortium import round_events, training_round
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import Participant, RoundPlan, context_of
from consortium.errors import ConsortiumError
from privacy import p256
from privacy.encoding import RingVector, Sums, decode
from privacy.p256 import EcdsaSigner
from privacy.secagg import site as secagg
from privacy.secagg.cohort import CohortRule
from privacy.secagg.masks import RunningSum, encode_and_mask
from privacy.secagg.messages import UploadHeader
from privacy.secagg.suites import SuiteName
from privacy.secret import Secret
from site_agent import participation

Lanes: TypeAlias = Mapping[str, NDArray[Any]]


class SimulationFailed(ConsortiumError):
    """A machine did not do what it does in a run where nobody fails."""

    def advice(self) -> str:
        """What to do next."""
        return "Nobody drops out in a simulation, so this is an error of this software: report it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A simulated hospital's keys, for as long as the simulation runs."""

    signing_key: Ed25519PrivateKey
    ecdsa_key: EcdsaSigner
    long_term_secret: Secret[bytes]

    @classmethod
    def fresh(cls) -> "Keys":
        """New ones."""
        return cls(
            signing_key=Ed25519PrivateKey.generate(),
            ecdsa_key=EcdsaSigner(p256.private_key(Secret(os.urandom(p256.SEED_BYTES))).expose()),
            long_term_secret=Secret(os.urandom(32)),
        )

    def participant(self, site: SiteId) -> Participant:
        """The hospital as a plan names it; there is no certificate, so its fingerprint is that of its name."""
        return Participant(
            site=site,
            spki_sha256=Digest(hashlib.sha256(site.encode()).hexdigest()),
            signing_key=self.signing_key.public_key().public_bytes_raw().hex(),
            ecdsa_key=self.ecdsa_key.public.hex(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """What the coordinator learns."""

    sums: Sums
    transcript: Digest


class SimulatedRound:
    """One attempt. Mutable: it owns the machines, the queue and the running sum."""

    def __init__(self, plan: RoundPlan, keys: Mapping[SiteId, Keys], lanes: Mapping[SiteId, Lanes]) -> None:
        self._plan = plan
        self._lanes = lanes
        self._queue: deque[round_events.Event] = deque()
        self._masked: dict[SiteId, RingVector] = {}
        self._total = RunningSum(plan.layout)
        self._state: training_round.State
        self._state, effects = training_round.begin(plan, None)
        self._sites: dict[SiteId, participation.Participation] = {}
        for participant in plan.participants:
            own = keys[participant.site]
            machine, first = participation.begin(
                context_of(plan),
                participant.site,
                own.ecdsa_key if plan.suite is SuiteName.P256 else own.signing_key,
                os.urandom,
                own.long_term_secret,
                cohort=CohortRule(least_difference=1, update_is_private=True),
            )
            site = participation.Participation(plan=plan, machine=machine)
            self._sites[participant.site], _ = participation.step(site, participation.UpdateReady())
            self._queue.append(round_events.MessageArrived(site=participant.site, message=first))
        self._perform(effects)

    def run(self) -> Opened:
        """Deliver everything until the sum is open; raises SimulationFailed."""
        while isinstance(self._state, training_round.Running):
            if not self._queue:
                raise SimulationFailed(f"round {self._plan.round} stopped while {self._state.phase.value}")
            self._state, effects = training_round.step(self._state, self._queue.popleft())
            self._perform(effects)
        if isinstance(self._state, training_round.Aborted):
            raise SimulationFailed(f"round {self._plan.round} was aborted: {self._state.reason}")
        self._total.remove(self._state.removal)
        sums = decode(self._total.result, self._plan.layout, survivors=len(self._state.survivors))
        return Opened(sums=sums, transcript=Digest(self._state.transcript.hex()))

    def _perform(self, effects: Sequence[training_round.Effect]) -> None:
        for effect in effects:
            match effect:
                case training_round.Tell(site=site, message=message):
                    if isinstance(message, participation.Event):
                        self._hear(site, message)
                case training_round.AddToSum(site=site):
                    self._total.add(self._masked.pop(site))
                case _:  # deadlines and notes: nobody is late, and there is no log
                    pass

    def _hear(self, site: SiteId, event: participation.Event) -> None:
        self._sites[site], effects = participation.step(self._sites[site], event)
        for effect in effects:
            match effect:
                case secagg.Send(message=UploadHeader() as header):
                    self._queue.append(round_events.UploadStored(site=site, header=header))
                case secagg.Send(message=message):
                    assert not isinstance(message, UploadHeader)  # taken above
                    self._queue.append(round_events.MessageArrived(site=site, message=message))
                case participation.MaskAndUpload(masks=masks, dither=dither):
                    vector, name = encode_and_mask(self._lanes[site], self._plan.layout, dither, masks)
                    self._masked[site] = vector
                    self._hear(site, participation.UpdateMasked(masked_update_hash=name))
                case secagg.Abandon(reason=reason):
                    raise SimulationFailed(f"{site} left round {self._plan.round}: {reason}")
                case secagg.PersistReleased():
                    pass  # nothing outlives a simulation
