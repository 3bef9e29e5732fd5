"""Hospitals die, freeze and lose their line at every moment of a round: real processes, real mutual TLS.

Every break is planned ahead by round number (`faults.py`). One hospital never breaks; it holds up some rounds until the
test lets them go, so that who is invited to the next round does not depend on how fast a process starts.
"""

from pathlib import Path
from typing import Any

import pytest

from consortium.contract.names import Digest
from consortium.contract.plan import RoundPlan
from consortium.wire.limits import KEEPALIVE_S
from site_agent.store import Store
from tests.e2e.faulty_world import WIDE, Break, FaultyWorld, Nursery, faulty_consortium, until
from tests.e2e.world import SITES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HOLDER = "va-long-beach"
BREAKING = tuple(site for site in SITES if site != HOLDER)

# How, and at which moment -> where the coordinator may find the hospital missing (None: nowhere, the round was over, or
# it was back in time), and whether its update is in the sum.
EXPECTED: dict[tuple[str, str], tuple[set[str | None], bool]] = {
    ("kill", "before-bundle"): ({"inviting"}, False),
    ("kill", "before-shares"): ({"keying"}, False),
    ("kill", "before-upload"): ({"collecting"}, False),
    ("kill", "half-upload"): ({"collecting"}, False),
    ("kill", "after-upload"): ({"collecting", "confirming"}, True),
    ("kill", "before-confirmation"): ({"confirming"}, True),
    ("kill", "released"): ({"unmasking"}, True),
    ("kill", "after-unmask-shares"): ({"unmasking", None}, True),
    ("cut", "before-shares"): ({"keying"}, False),
    ("cut", "half-upload"): ({None}, True),
    ("cut", "released"): ({"unmasking", None}, True),
}

UPLOAD_DEADLINE_S, ROUND_DEADLINE_S = 5, 8  # the others must answer within them, on a busy machine too
SOON_S = 6  # for whatever a round does besides waiting
FREEZES = {
    # Moment -> in which phase it is missing, after how long, and whether its update is in the sum.
    "before-bundle": ("inviting", UPLOAD_DEADLINE_S, False),
    "before-shares": ("keying", UPLOAD_DEADLINE_S, False),
    "half-upload": ("collecting", ROUND_DEADLINE_S, False),
    "before-confirmation": ("confirming", UPLOAD_DEADLINE_S, True),
    "released": ("unmasking", UPLOAD_DEADLINE_S, True),
}


def test_hospitals_die_or_lose_their_line_at_every_moment(tmp_path: Path, nursery: Nursery) -> None:  # noqa: PLR0915 - one run for all
    planned = {
        2 * place + 2: (BREAKING[place % len(BREAKING)], how, moment) for place, (how, moment) in enumerate(EXPECTED)
    }
    pair = BREAKING[:2]
    # Two of four at once are one too many: in 4.2, in 4.3, and in 4.4.
    early, late, last = (max(planned) + step for step in (2, 4, 6))
    wanted = {
        site: [Break(round=r, moment=m, how=h) for r, (s, h, m) in planned.items() if s == site] for site in SITES
    }
    for site in pair:
        wanted[site] += [
            Break(round=early, moment="before-upload", how="kill"),
            Break(round=late, moment="before-confirmation", how="kill"),
            Break(round=last, moment="released", how="kill"),
        ]
    wanted[HOLDER] = [Break(round=r + 1, moment="before-upload", how="hold") for r in (*planned, early, late)]
    rounds = last + 1

    with faulty_consortium(tmp_path, nursery, wanted) as world:
        # Measured are the first round and the last: exact metrics over one hospital more or less are never summed.
        world.submit(rounds=rounds, every_rounds=rounds, spare_rounds=4, **WIDE)
        for number, (site, how, moment) in planned.items():
            until(lambda: world.reached(site, Break(round=number, moment=moment, how=how)), f"{how} {moment}")  # noqa: B023
            if how == "kill":
                world.child(site).wait()
                world.away(site)  # the table names it
            world.closed(number)
            if how == "kill":
                world.start_agent(site)
            world.present(site)
            world.go(number + 1)
        for number, moment in ((early, "before-upload"), (late, "before-confirmation"), (last, "released")):
            for site in pair:
                until(lambda: world.reached(site, Break(round=number, moment=moment, how="kill")), f"{site} {moment}")  # noqa: B023
                world.child(site).wait()
            world.away(*pair)
            assert all(closed["round"] != number for closed in world.study()["history"])
            for site in pair:
                world.start_agent(site)
            world.closed(number)
            world.present(*pair)  # so that both are invited to the round after the next
            world.go(number + 1)
        world.wait_for(lambda s: s["state"] == "completed", "the study to end", 300)

        log = Said(world.entries())
        for number, (site, how, moment) in planned.items():
            phases, in_sum = EXPECTED[how, moment]
            case = f"{how} {moment}"
            assert world.survivors(number) == [s for s in SITES if in_sum or s != site], case
            gone = log.dropouts(number)
            assert set(gone) <= {site}, (case, gone)
            phase, reason = gone.get(site, (None, ""))
            assert phase in phases, (case, phase)
            assert phase is None or reason.endswith("its update is in the sum") == in_sum, (case, reason)
            # The round after the next is the first that was planned with the hospital back: it is invited.
            assert site in log.started(number + 2)["participants"], case
            assert log.aborted(number) == [], case
        # A round whose shares had left is closed at the hospital too, by the process that came after.
        for moment in ("released", "after-unmask-shares"):
            ((number, site),) = [(n, s) for n, (s, how, m) in planned.items() if (how, m) == ("kill", moment)]
            assert site in log.verified(number), moment

        for number in (early, late):
            # Too few: the attempt ends, nobody released anything for it, and the next has other keys.
            assert log.aborted(number) == ["1"]
            assert set(log.dropouts(number)) == set(pair)
            assert log.started(number, 2)["plan_sha256"] != log.started(number, 1)["plan_sha256"]
        assert {log.dropouts(early)[site][0] for site in pair} == {"collecting"}
        assert {log.dropouts(late)[site][0] for site in pair} == {"confirming"}
        for site in SITES:
            released = releases(world, site)
            assert not {(early, 1), (late, 1)} & released, site
        # The holder's update was trained once and masked twice, under other masks.
        uploads = [e["body"]["masked_update_sha256"] for e in log.entries("update.submitted", late) if by(e, HOLDER)]
        assert len(uploads) == len(set(uploads)) == 2
        assert sum(by(entry, HOLDER) for entry in log.entries("dp.spent", late)) == 1
        # In 4.4 the two had written down what they were about to reveal. They came back and sent just that.
        assert log.aborted(last) == []
        assert world.survivors(last) == list(SITES)
        assert world.survivors(rounds) == list(SITES)

        closed = [entry["round"] for entry in log.all if entry["type"] == "round.closed"]
        assert closed == [str(number) for number in range(1, rounds + 2)]
        assert world.verified_evidence().rstrip().endswith("VERIFIED")
        assert left_over(world) == []


def test_a_frozen_hospital_is_cut_by_the_deadline_of_its_phase(tmp_path: Path, nursery: Nursery) -> None:
    assert ROUND_DEADLINE_S + SOON_S < 1.5 * KEEPALIVE_S  # so it cannot be the keepalive that finds it
    planned = {place + 2: (BREAKING[place % len(BREAKING)], moment) for place, moment in enumerate(FREEZES)}
    wanted = {
        site: [Break(round=r, moment=m, how="freeze") for r, (s, m) in planned.items() if s == site] for site in SITES
    }
    # With the phase after, so that the table can be looked at: in which round the holder waits, and where.
    looks = {"before-bundle": "before-upload", "half-upload": "before-confirmation", "before-confirmation": "released"}
    seen = {r: looks[m] for r, (_, m) in planned.items() if m in looks}
    wanted[HOLDER] = [Break(round=r, moment=moment, how="hold") for r, moment in seen.items()]
    hopeless = max(planned) + 1
    pair = BREAKING[:2]
    for site in pair:
        wanted[site].append(Break(round=hopeless, moment="released", how="freeze"))
    rounds = hopeless + 1

    with faulty_consortium(tmp_path, nursery, wanted) as world:
        world.submit(
            rounds=rounds,
            every_rounds=rounds,
            spare_rounds=4,
            round_deadline_s=ROUND_DEADLINE_S,
            upload_deadline_s=UPLOAD_DEADLINE_S,
            **WIDE,
        )
        for number, (site, moment) in planned.items():
            until(lambda: world.child(site).state == "T", f"{site} to freeze {moment}")  # noqa: B023
            if moment == "half-upload":
                until(lambda: bool(half_uploads(world)), "half an upload")
            if number in seen:
                word = f"dropped out while {WORDS[FREEZES[moment][0]]}"
                world.wait_for(lambda _: word in world.table(site), f"the table to say that {site} {word}")  # noqa: B023
                world.go(number)
            world.closed(number)
            world.thaw(site)
        for site in pair:
            until(lambda: world.child(site).state == "T", f"{site} to freeze")  # noqa: B023
        world.wait_for(lambda s: s["attempt"] == 2, "the attempt to be given up")
        for site in pair:
            world.thaw(site)
        world.wait_for(lambda s: s["state"] == "completed", "the study to end", 300)

        log = Said(world.entries())
        history = {closed["round"]: closed for closed in world.study()["history"]}
        for number, (site, moment) in planned.items():
            phase, deadline_s, in_sum = FREEZES[moment]
            assert log.dropouts(number)[site] == (phase, reason_of(in_sum=in_sum)), moment
            assert world.survivors(number) == [s for s in SITES if in_sum or s != site], moment
            assert deadline_s <= history[number]["seconds"] < deadline_s + SOON_S, moment
            assert log.aborted(number) == [], moment
            # It was still connected when the next round was planned, and awake when its turn came.
            assert site in world.survivors(number + 1), moment
        # Two shares of a threshold of three: the sum stays masked, and a private update is trained and charged again.
        assert log.aborted(hopeless) == ["1"]
        assert {site: phase for site, (phase, _) in log.dropouts(hopeless).items()} == dict.fromkeys(pair, "unmasking")
        assert {site for site in SITES if (hopeless, 1) in releases(world, site)} == set(SITES)
        assert sum(by(entry, HOLDER) for entry in log.entries("dp.spent", hopeless)) == 2
        assert world.verified_evidence().rstrip().endswith("VERIFIED")
        assert left_over(world) == []


# --- what the log, the table and the folders say -------------------------------------------------------------------

WORDS = {"inviting": "exchanging keys", "collecting": "training", "confirming": "confirming"}


def reason_of(*, in_sum: bool) -> str:
    return "it did not answer in time" + "; its update is in the sum" * in_sum


def by(entry: dict[str, Any], site: str) -> bool:
    return bool(entry["actor"] == f"site:{site}")


class Said:
    """What the log says, read once."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.all = entries

    def entries(self, kind: str, number: int) -> list[dict[str, Any]]:
        return [entry for entry in self.all if (entry["type"], entry["round"]) == (kind, str(number))]

    def dropouts(self, number: int, attempt: int = 1) -> dict[str, tuple[str, str]]:
        """Who dropped out of an attempt: in which phase, and why."""
        found = [entry for entry in self.entries("secagg.dropout", number) if entry["attempt"] == str(attempt)]
        assert len({entry["body"]["site"] for entry in found}) == len(found)  # each is said once
        return {entry["body"]["site"]: (entry["body"]["phase"], entry["body"]["reason"]) for entry in found}

    def aborted(self, number: int) -> list[str]:
        """The attempts of a round that were given up."""
        return [entry["attempt"] for entry in self.entries("round.aborted", number)]

    def started(self, number: int, attempt: int = 1) -> dict[str, Any]:
        """How an attempt began."""
        (found,) = [entry for entry in self.entries("round.started", number) if entry["attempt"] == str(attempt)]
        return dict(found["body"])

    def verified(self, number: int) -> set[str]:
        """Who computed the model that followed from a round."""
        return {entry["actor"].removeprefix("site:") for entry in self.entries("model.verified", number)}


def releases(world: FaultyWorld, site: str) -> set[tuple[int, int]]:
    """The attempts for which a hospital has written down that its shares leave."""
    store = Store(world.folder / site / "agent.db")
    plans = [RoundPlan.from_bytes(r.plan) for r in store.releases(Digest(str(world.study()["digest"])))]
    return {(plan.round, plan.attempt) for plan in plans}


def half_uploads(world: FaultyWorld) -> list[int]:
    """The sizes of uploads that have begun and are not whole."""
    return [path.stat().st_size for path in (world.home / "uploads").glob(".begun-*") if path.stat().st_size]


def left_over(world: FaultyWorld) -> list[Path]:
    """Masked updates that the coordinator still has, whole or not; none once every round is closed."""
    return [path for path in (world.home / "uploads").iterdir() if path.is_file()]
