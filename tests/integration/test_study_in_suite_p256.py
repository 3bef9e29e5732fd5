"""A study in the suite p256 over real mutual TLS: its keys and sizes, a site that breaks off, a site that lies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consortium.contract.messages import BundleList, Invitation, RoundResult, ShareDelivery
from consortium.contract.plan import RoundPlan
from consortium.training_round import Phase
from privacy.secagg.messages import Confirmation, SurvivorProposal
from privacy.secagg.suites import SUITES, SuiteName
from privacy.secagg.transcript import confirmation_payload, upload_payload
from tests.fakes.scripted_site import serving, update_of
from tests.fakes.small_study import SITES, small_study

AMBER, BIRCH, CEDAR, DELTA = SITES
SUITE = SUITES[SuiteName.P256]


async def test_a_whole_study(tmp_path: Path) -> None:
    study = small_study(rounds=2, suite="p256")
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        history = world.history(study)
        assert [(r["round"], r["attempt"], r["survivors"]) for r in history] == [(n, 1, list(SITES)) for n in (1, 2, 3)]
        mean = np.mean([update_of(name) for name in SITES], axis=0)
        assert world.model(study) == pytest.approx([2 * float(value) for value in mean], abs=1e-4)
        assert world.home.types().count("model.verified") == 12
        assert "secagg.failed" not in world.home.types()

        amber = sites[AMBER]
        assert len(amber.told(RoundResult)) == 3
        for invitation in amber.told(Invitation):
            plan = RoundPlan.from_bytes(invitation.plan)
            assert plan.suite is SuiteName.P256
            keys = {p.site: (p.signing_key, p.ecdsa_key) for p in plan.participants}
            for name, site in sites.items():
                peer = site.hospital.identity
                assert peer.signing_key is not None
                assert peer.ecdsa_key is not None
                assert keys[name] == (peer.signing_key.hex(), peer.ecdsa_key.hex())
        bundles = [bundle for told in amber.told(BundleList) for bundle in told.bundles]
        assert {len(b.pair_key) for b in bundles} == {len(b.box_key) for b in bundles} == {SUITE.public_key_bytes}
        boxes = [one for told in amber.told(ShareDelivery) for one in told.deliveries]
        assert {len(one.shares) for one in boxes} == {SUITE.shares_box_bytes}
        for proposal in amber.told(SurvivorProposal):
            for header in proposal.headers:
                key = bytes.fromhex(keys[header.site][1])
                assert SUITE.signature_holds(key, upload_payload(header), header.signature)


async def test_a_site_that_breaks_off_before_its_update_is_in(tmp_path: Path) -> None:
    """Its root is recovered, its key pair compared with what it advertised, and its pairwise masks taken off."""
    study = small_study(rounds=1, suite="p256")
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[BIRCH].script[1, 1] = Phase.COLLECTING
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(world.history(study)) >= 1)
        assert world.history(study)[0]["survivors"] == [AMBER, CEDAR, DELTA]
        assert (1, 1, BIRCH, Phase.COLLECTING.value) in world.dropouts()
        mean = np.mean([update_of(name) for name in (AMBER, CEDAR, DELTA)], axis=0)
        assert world.model(study) == pytest.approx([float(value) for value in mean], abs=1e-4)


async def test_what_is_signed_with_the_key_of_the_other_suite_counts_for_nothing(tmp_path: Path) -> None:
    """The certificate binds that key too, for the other suite only."""
    study = small_study(rounds=1, suite="p256")
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        ed25519 = sites[DELTA].hospital.signing_key

        def resigned(message: object) -> object:
            if isinstance(message, Confirmation):
                return replace(message, signature=ed25519.sign(confirmation_payload(message)))
            return message

        sites[DELTA].changes[1, 1] = resigned
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(world.history(study)) >= 1)
        assert world.history(study)[0]["survivors"] == list(SITES)
        assert (1, 1, DELTA, Phase.CONFIRMING.value) in world.dropouts()
        (failed,) = world.home.bodies("secagg.failed")
        assert (failed["blamed"], failed["phase"]) == (DELTA, Phase.CONFIRMING.value)
        assert "signature" in failed["rule"]
