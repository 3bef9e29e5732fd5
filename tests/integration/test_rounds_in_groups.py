"""Attempts in groups through a coordinator with a real database, a real log and real mutual TLS; scripted sites.

A study file asks for 64 hospitals in a group. Here the plans of training rounds say 3, so that the four hospitals of
the small study are one group: the beacon, a group's own context and the one release of all groups, at little cost.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consortium.contract.layout import round_layout
from consortium.contract.messages import BundleList
from consortium.contract.plan import RoundKind, RoundPlan
from consortium.driver import StudyDriver
from consortium.training_round import Phase
from privacy.secagg.messages import CommitmentList, GroupedUnmaskRequest, RevealList, UnmaskRequest
from tests.fakes.scripted_site import serving, update_of
from tests.fakes.small_study import SITES, first_model, small_study

AMBER, BIRCH, CEDAR, DELTA = SITES


@pytest.fixture(autouse=True)
def groups_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is planned in groups and without metrics, as if the study file said so."""
    planned = StudyDriver._plan

    def in_groups(self: StudyDriver, *arguments: Any) -> RoundPlan:
        plan = planned(self, *arguments)
        if plan.kind is RoundKind.EVALUATE:
            return plan
        parameters = first_model().parameters
        layout = round_layout(self.study, parameters=parameters, kind=RoundKind.TRAIN, measured=False)
        return replace(plan, group_size=3, layout=layout)

    monkeypatch.setattr(StudyDriver, "_plan", in_groups)


def mean_update(*names: str) -> list[float]:
    return [float(value) for value in np.mean([update_of(name) for name in names], axis=0)]


async def test_a_whole_study_in_groups(tmp_path: Path) -> None:
    study = small_study(rounds=2)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        history = world.history(study)
        assert [(r["round"], r["attempt"], r["kind"]) for r in history] == [
            (1, 1, "train"),
            (2, 1, "train"),
            (3, 1, "evaluate"),
        ]
        assert all(r["survivors"] == list(SITES) for r in history)
        assert world.model(study) == pytest.approx([2 * value for value in mean_update(*SITES)], abs=1e-4)
        assert world.dropouts() == []
        for site in sites.values():
            assert [len(site.told(kind)) for kind in (CommitmentList, RevealList, GroupedUnmaskRequest)] == [2, 2, 2]
            assert [len(site.told(kind)) for kind in (BundleList, UnmaskRequest)] == [3, 1]
        # Nothing is left of the attempts but what was decided.
        assert list((world.home.folder / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        (Phase.INVITING, Phase.COMMITTING),  # it never answers the invitation
        (Phase.REVEALING, Phase.REVEALING),
        (Phase.KEYING, Phase.KEYING),
        (Phase.COLLECTING, Phase.COLLECTING),
        (Phase.CONFIRMING, Phase.CONFIRMING),
        (Phase.UNMASKING, Phase.UNMASKING),
    ],
)
async def test_a_site_that_breaks_off_costs_its_own_place_only(tmp_path: Path, asked: Phase, noted: Phase) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[BIRCH].script[1, 1] = asked
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(world.history(study)) >= 1)
        (first, *_) = world.history(study)
        assert first["attempt"] == 1
        in_the_sum = asked in (Phase.CONFIRMING, Phase.UNMASKING)
        assert first["survivors"] == (list(SITES) if in_the_sum else [AMBER, CEDAR, DELTA])
        assert (1, 1, BIRCH, noted.value) in world.dropouts()
        assert world.model(study) == pytest.approx(mean_update(*first["survivors"]), abs=1e-4)
