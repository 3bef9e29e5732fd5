"""A study that runs at a coordinator without the wire: submitted, approved by three hospitals, its model agreed."""

from dataclasses import replace

from consortium.contract.names import Digest, RoundNumber, SiteId
from consortium.contract.plan import RoundPlan
from tests.fakes.attempt_play import plan_of
from tests.fakes.coordinator_home import Home
from tests.fakes.memory_round import consortium
from tests.fakes.small_study import SITES, small_study

STUDY = small_study()
MODEL = Digest("a1" * 32)


def plan(round_number: int = 1, attempt: int = 1) -> RoundPlan:
    """A plan of the study's, for its first three hospitals."""
    members = tuple(
        replace(member, site=SiteId(name)) for member, name in zip(consortium(3).members, SITES[:3], strict=True)
    )
    return plan_of(
        members, study=STUDY.id, study_digest=STUDY.digest(), round=RoundNumber(round_number), attempt=attempt
    )


def started(world: Home) -> None:
    """Submit, approve, start, agree."""
    world.submit(STUDY)
    for name in SITES[:3]:
        hospital = world.enrol(name)
        world.sites.submit_events(hospital.site, [hospital.approves(STUDY)])
    world.studies.move(STUDY.id, "start")
    world.studies.begin(world.studies.get(STUDY.id), [SiteId(site) for site in SITES[:3]], MODEL)
