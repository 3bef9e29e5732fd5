"""A-10: the log shows a sum opened over too few sites, over one that was not invited, or for a round nobody began.

Held by: step 16, against the threshold of the plan and that of the approved study. Tried: rows a10 of `mutations.py`.
"""

import json

from audit import verify
from tests.fakes.sample_study_log import SITES, SampleConsortium, evidence, failed_steps

SURVIVORS = "survivors and threshold"


def begun() -> SampleConsortium:
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    return sample


def failure(tmp_path, sample):
    archive, policy = evidence(tmp_path, sample)
    return failed_steps(verify.check(str(archive), policy))[SURVIVORS]


def test_fewer_survivors_than_the_threshold(tmp_path):
    sample = begun()
    sample.one_round(1, survivors=SITES[:2])
    step = failure(tmp_path, sample)
    assert (step["expected"], step["found"]) == ("at least 3 survivors", "2")


def test_a_plan_with_a_lower_threshold_than_the_study(tmp_path):
    sample = begun()
    sample.one_round(1, survivors=SITES[:2])
    sample.lines = [line.replace(b'"threshold":3}', b'"threshold":2}') for line in sample.lines]
    place = next(n for n, line in enumerate(sample.lines) if b"round.started" in line)
    record = json.loads(sample.lines[place])
    record["body"]["threshold"] = 2
    sample.lines[place] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    assert failure(tmp_path, sample)["expected"] == "at least 3 survivors"


def test_a_survivor_that_was_not_invited(tmp_path):
    sample = begun()
    sample.one_round(1, survivors=(*SITES[:3], "va-long-beach"))
    place = next(n for n, line in enumerate(sample.lines) if b"round.started" in line)
    record = json.loads(sample.lines[place])
    record["body"]["participants"] = list(SITES[:3])
    sample.lines[place] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    assert "site:va-long-beach" in failure(tmp_path, sample)["found"]


def test_a_round_that_was_never_started(tmp_path):
    sample = begun()
    sample.one_round(1)
    sample.lines = [line for line in sample.lines if b"round.started" not in line]
    assert failure(tmp_path, sample)["expected"] == "a round that was started"
