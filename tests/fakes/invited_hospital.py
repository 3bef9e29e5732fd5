"""A hospital that reads invitations and does nothing else: no process, no training, no torch.

invited = invited_hospital(tmp_path)
invited.joins(invited.plan())
assert invited.refuses(invited.plan(threshold=4)) == "threshold"
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consortium.contract.global_model import GlobalModel
from consortium.contract.plan import RoundPlan
from consortium.contract.study import StudyFile
from site_agent.plan_check import Expectation, PlanRefused, check_plan, check_signature
from tests.fakes.site_world import ME, World, keys, make_world

MODEL = GlobalModel((("w", (4,)),), np.zeros(4, dtype=np.float32))
"""The first global model, as the hospital computed it."""


def expectation(study: StudyFile, **changes: Any) -> Expectation:
    """What a hospital of the study knows before its first round, but for `changes`."""
    fields: dict[str, Any] = {
        "consortium": "alpine-heart",
        "study": study,
        "site": ME,
        "signing_key": keys().members[ME].participant.signing_key,
        "ecdsa_key": keys().members[ME].participant.ecdsa_key,
        "parameters": MODEL.parameters,
        "first_model": MODEL.digest(),
        "chain": None,
        "joined": (0, 0),
        "released": False,
        "peers": {},
        "minimum_sites": 3,
        "minimum_threshold": 3,
    }
    return Expectation(**{**fields, **changes})


@dataclass(frozen=True)
class InvitedHospital:
    """What it knows, and the coordinator's way to make plans and to sign them."""

    world: World

    def plan(self, **changes: Any) -> RoundPlan:
        """The honest plan of the first round, but for `changes`."""
        return self.world.plan(**changes)

    def certificates(self, plan: RoundPlan) -> tuple[bytes, ...]:
        """Those of an honest invitation."""
        return self.world.invitation(plan).certificates

    def expects(self, **changes: Any) -> Expectation:
        """What the hospital knows before its first round, but for `changes`."""
        return expectation(self.world.study, **changes)

    def joins(self, plan: RoundPlan, *, expects: Expectation | None = None, **changes: Any) -> None:
        """Read a signed invitation to the plan, but for `changes`; raises PlanRefused if it is not accepted."""
        invitation = self.world.invitation(plan, **changes)
        check_signature(invitation, keys().coordinator.public_key().public_bytes_raw())
        authority = keys().authority.certificate
        check_plan(plan, invitation, expects or self.expects(), authority=authority, now=datetime.now(UTC))

    def refuses(self, plan: RoundPlan, **changes: Any) -> str:
        """The rule by which it declines; it must."""
        with pytest.raises(PlanRefused) as caught:
            self.joins(plan, **changes)
        return caught.value.rule


def invited_hospital(folder: Path) -> InvitedHospital:
    """One that is enrolled and has approved the study."""
    world = make_world(folder)
    world.model = MODEL
    return InvitedHospital(world)
