"""The real agent in a study of the suite p256: it signs with its ECDSA key, and its hospital may refuse the suite."""

import pytest

from privacy.secagg.messages import KeyBundle
from privacy.secagg.suites import SUITES, SuiteName
from privacy.secagg.transcript import bundle_payload
from tests.fakes.site_world import ME, hospital, keys, make_world, small_study, write_site_file

STUDY = small_study(aggregation={"suite": "p256"})
SUITE = SUITES[SuiteName.P256]


async def test_a_whole_study(tmp_path):
    async with hospital(tmp_path, STUDY) as world:
        for number in (1, 2, 3):
            outcome = await world.attempt()
            assert (outcome.plan.round, outcome.plan.suite, outcome.closed) == (number, SuiteName.P256, True)
            bundle = outcome.said[0]
            assert isinstance(bundle, KeyBundle)
            assert len(bundle.pair_key) == len(bundle.box_key) == SUITE.public_key_bytes
            key = bytes.fromhex(keys().members[ME].participant.ecdsa_key)
            assert SUITE.signature_holds(key, bundle_payload(bundle), bundle.signature)
        assert world.store.chain(world.digest).round == 3


async def test_the_ecdsa_key_is_needed_for_nothing_else(tmp_path):
    """A study of the other suite runs without it; one of this suite does not begin, and nothing is spent."""
    async with hospital(tmp_path / "one") as world:
        (tmp_path / "one/keys/ecdsa.pem").unlink()
        assert (await world.attempt()).closed
    async with hospital(tmp_path / "two", STUDY) as world:
        (tmp_path / "two/keys/ecdsa.pem").unlink()
        answer = await world.ask(world.plan())
        assert (answer.rule, answer.explanation) == ("site", "this site cannot take part (HomeInvalid)")
        assert world.ledger.report() == ()


@pytest.mark.parametrize(("study", "allowed"), [(STUDY, ["hybrid-pq"]), (small_study(), ["p256"])])
async def test_a_suite_the_hospital_does_not_allow(tmp_path, study, allowed):
    world = make_world(tmp_path, study)
    write_site_file(tmp_path, study, allowed_suites=allowed)
    await world.start()
    try:
        answer = await world.prepare()
        assert answer.rule == "allowed_suites"
        assert study.aggregation.suite in answer.explanation
    finally:
        await world.stop()
