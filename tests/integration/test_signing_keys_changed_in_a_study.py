"""A study that runs on while hospitals change their signing keys, and no other hospital does anything about it.

Real agents over loopback gRPC; `rotate-signing-keys` as the command line has it.
"""

import asyncio

import pytest

from audit import entries, verify
from audit.site_keys import SigningKeys
from consortium.contract.certificates import certificate_der
from site_agent import renewal
from site_agent.app import export_evidence, policy_text, review_study, rotate_signing_keys
from site_agent.only_agent import only_agent
from tests.fakes.agents_in_process import hospitals_of
from tests.fakes.site_world import small_study
from tests.fakes.stewards import KEY

WAIT_S = 240.0


async def until(consortium, holds):
    async with asyncio.timeout(WAIT_S):
        while not holds():
            for agent in consortium.agents.values():
                if agent.task is not None and agent.task.done():
                    agent.task.result()
            await asyncio.sleep(0.02)


async def paused_after(consortium, rounds):
    """Let so many more rounds be closed, then pause."""
    world, study = consortium.world, consortium.study
    target = len(world.history(study)) + rounds
    await until(consortium, lambda: len(world.history(study)) >= target)
    await world.command("study.pause", study=study.id)
    await until(consortium, lambda: world.state(study) == "paused")
    # And every survivor has said that it computed the same: a hospital that was away asks for three such words.
    words = sum(len(one["survivors"]) for one in world.history(study))
    await until(consortium, lambda: world.home.types().count("model.verified") == words)


async def changes_keys(consortium, name):
    """The steward signs, and the running agent carries it out; the new keys, once they are certified."""
    agent, sites = consortium.agents[name], consortium.world.home.sites
    with only_agent(agent.home.folder):  # as `site-agent run` holds it
        made = await rotate_signing_keys(agent.home.folder, f"Dr {name}", KEY)
    assert (made.done, made.running) == (False, True)

    def certified():
        row = sites.get(name)
        return row.signing_key == made.keys.signing and sites.is_current(row)

    await until(consortium, certified)
    return made.keys


async def exported_under_the_new_key(folder, study, archive):
    """What the hospital itself holds against the log, and exports, with the agents stopped."""
    assert not (await asyncio.to_thread(review_study, folder, study)).failed
    await asyncio.to_thread(export_evidence, folder, study, archive)
    own = await asyncio.to_thread(verify.check, str(archive), policy_text(folder, None))  # whoever cosigned the end
    assert own["verified"], [step for step in own["steps"] if step["status"] != "PASS"]
    keys = {path.name for path in (folder / "keys").iterdir()}
    assert "signing-keys.json" in keys
    assert not keys & {"signing.pem", "ecdsa.pem", "next-signing-keys.json"}


@pytest.mark.parametrize("suite", ["hybrid-pq", "p256"])
async def test_a_study_runs_on_over_changes_that_no_other_hospital_hears_of(tmp_path, monkeypatch, capsys, suite):
    monkeypatch.setattr(renewal, "LOOKS_S", 0.05)
    study = small_study(training={"rounds": 14}, aggregation={"suite": suite})
    amber, birch, cedar, delta = study.sites.roster
    async with hospitals_of(tmp_path, study, stewards_in_log=True) as consortium:
        world = consortium.world
        await world.command("study.start", study=study.id)
        await paused_after(consortium, 1)
        before = world.home.sites.get(amber)
        # One hospital is away: it misses a round, and every change that follows.
        await consortium.agents[delta].end()
        await world.command("study.resume", study=study.id)
        await paused_after(consortium, 1)
        first = await changes_keys(consortium, amber)
        second = await changes_keys(consortium, amber)
        other = await changes_keys(consortium, birch)
        assert len({before.signing_key, first.signing, second.signing}) == 3
        # What it is shown of the missed round, two of three signed with keys that they do not have any more.
        consortium.agents[delta].start()
        await until(consortium, lambda: delta in world.home.rooms.sessions.connected())
        await world.command("study.resume", study=study.id)
        begun = len(world.history(study))
        await until(consortium, lambda: any(delta in r["survivors"] for r in world.history(study)[begun:]))
        await world.command("study.pause", study=study.id)
        await until(consortium, lambda: world.state(study) == "paused")
        await world.command("study.resume", study=study.id)
        await consortium.until("completed")
        await consortium.certified()
        for name, agent in consortium.agents.items():
            known = {site: SigningKeys(signing=s, ecdsa=e) for site, _, s, e in agent.store.peers()}
            assert known[amber] == second, name
            assert known[birch] == other, name
            followed = [one.change.new for one in agent.store.followed_changes() if one.change.site == amber]
            assert followed == [first, second], name
        said = [line for line in capsys.readouterr().out.splitlines() if "peer.keys_changed" in line]
        assert len(said) == 9  # three changes, each once at each of the three other hospitals
        assert all("signed by its former key, by one of its stewards" in line for line in said)
        assert "round.refused" not in world.home.types()
        assert world.home.types().count("site.keys_rotated") == 3
        shown = certificate_der(consortium.agents[amber].home.connection.certificate_pem)
        assert shown == world.home.sites.get(amber).certificate
        last = world.history(study)[-1]
        assert set(last["survivors"]) >= {amber, birch, cedar}
        # The chain went on: every entry since stands in it, under the new key.
        log = list(world.home.rooms.recorder.log.entries())
        chains = entries.replay_chains(log)
        assert chains[amber].next_seq == consortium.agents[amber].store.last_sequence() + 1
        result = await consortium.verified()
        assert result["verified"], [step for step in result["steps"] if step["status"] != "PASS"]
        assert sum("changed its signing keys at leaf" in note for note in result["notes"]) == 3
    await exported_under_the_new_key(consortium.agents[amber].home.folder, study.id, tmp_path / "amber.zip")
