"""The coordinator is killed in every phase, in the middle of an upload and around the closing of a round.

Real processes, real mutual TLS, SQLite and tiles on a real disk. Each time it is started again, goes on from its
journal, and nothing is charged, released or closed twice.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.faulty_world import WIDE, Break, Nursery, faulty_consortium, until
from tests.e2e.world import SITES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# When it dies -> in which attempt the round is closed. Until the survivors are asked for their shares an attempt is
# given up: nothing was revealed. From then on it is finished, because some may have released theirs.
DEATHS = {
    "opened": "2",
    "KeyBundle:2": "2",
    "SealedShares:2": "2",
    "half-upload": "2",
    "UploadStored:2": "2",
    "Confirmation:2": "2",
    "Confirmation:4": "2",  # nobody has been asked for shares
    "written": "1",
    "UnmaskShares:1": "1",  # these shares are lost, and asked for again
    "UnmaskShares:1 written": "1",
    "UnmaskShares:4": "1",
    "before-closing": "1",
    "after-closing": "1",
}


def test_a_coordinator_that_dies_goes_on_where_it_stood(tmp_path: Path, nursery: Nursery) -> None:
    planned = {number: Break(round=number, moment=moment, how="kill") for number, moment in enumerate(DEATHS, 2)}
    rounds = max(planned) + 1
    with faulty_consortium(tmp_path, nursery, {"coordinator": planned.values()}) as world:
        # No round without all four, however slowly they come back: the moments below count on four answers.
        world.submit(rounds=rounds, every_rounds=rounds, minimum=4, **WIDE)
        for wanted in planned.values():
            until(lambda: world.reached("coordinator", wanted), f"the coordinator to die at {wanted.moment}")  # noqa: B023
            world.child("coordinator").wait()
            world.start_coordinator()
        world.wait_for(lambda s: s["state"] == "completed", "the study to end", 300)
        log = world.entries()

        closed = [(entry["round"], entry["attempt"]) for entry in log if entry["type"] == "round.closed"]
        assert [number for number, _ in closed] == [str(number) for number in range(1, rounds + 2)]
        for number, wanted in planned.items():
            attempt = DEATHS[wanted.moment]
            given_up = [e["attempt"] for e in log if (e["type"], e["round"]) == ("round.aborted", str(number))]
            assert dict(closed)[str(number)] == attempt, wanted.moment
            assert given_up == ["1"][: int(attempt) - 1], wanted.moment

        # Nothing is trained and charged again because of a coordinator, and every charge is in the log.
        spent = Counter((entry["actor"], entry["round"]) for entry in log if entry["type"] == "dp.spent")
        assert set(spent.values()) == {1}, spent
        for site in SITES:
            (dataset,) = json.loads(world.run("site-agent", "budget", "--home", tmp_path / site, "--json").stdout)
            (budget,) = dataset["studies"]
            assert budget["rounds"] == sum(actor == f"site:{site}" for actor, _ in spent)
            assert budget["open_rounds"] == 0
            assert budget["epsilon"] <= 1.0
        verified = Counter((entry["actor"], entry["round"]) for entry in log if entry["type"] == "model.verified")
        assert set(verified.values()) == {1}
        assert world.verified_evidence().rstrip().endswith("VERIFIED")
        assert [path.name for path in (world.home / "uploads").iterdir()] == []
