"""A-02: the coordinator never logs one entry that a site submitted, or logs two in another order.

Held by: the counter and the previous hash inside every site-signed entry (step 11). Tried: rows a02 of `mutations.py`.
"""

import pytest

from audit import verify
from tests.fakes.sample_study_log import SampleConsortium, evidence, failed_steps

CHAINS = "no entry of a site is missing"


def of_site(sample: SampleConsortium, site: str) -> list[int]:
    return [number for number, line in enumerate(sample.lines) if b'"actor":"site:%b"' % site.encode() in line]


@pytest.mark.parametrize("which", [0, 1, 5, -2])
def test_a_dropped_entry(tmp_path, which):
    sample = SampleConsortium().whole_study()
    del sample.lines[of_site(sample, "hungary")[which]]
    archive, policy = evidence(tmp_path, sample)
    step = failed_steps(verify.check(str(archive), policy))[CHAINS]
    assert "site:hungary" in step["where"]
    assert step["expected"].startswith("the site's entry")


def test_two_entries_in_another_order(tmp_path):
    sample = SampleConsortium().whole_study()
    first, second = of_site(sample, "cleveland")[3:5]
    sample.lines[first], sample.lines[second] = sample.lines[second], sample.lines[first]
    archive, policy = evidence(tmp_path, sample)
    assert CHAINS in failed_steps(verify.check(str(archive), policy))


def test_an_entry_logged_twice(tmp_path):
    sample = SampleConsortium().whole_study()
    place = of_site(sample, "cleveland")[4]
    sample.lines.insert(place, sample.lines[place])
    archive, policy = evidence(tmp_path, sample)
    assert CHAINS in failed_steps(verify.check(str(archive), policy))


def test_enrolling_a_site_again_with_its_old_key_does_not_restart_its_counter(tmp_path):
    sample = SampleConsortium().whole_study()
    enrolled = next(line for line in sample.lines if b"site.enrolled" in line and b"hungary" in line)
    dropped = of_site(sample, "hungary")
    sample.lines = [line for number, line in enumerate(sample.lines) if number not in dropped[4:]]
    sample.lines += [enrolled, sample_line_one(sample)]
    archive, policy = evidence(tmp_path, sample)
    assert CHAINS in failed_steps(verify.check(str(archive), policy))


def sample_line_one(sample: SampleConsortium) -> bytes:
    return sample.lines[of_site(sample, "hungary")[0]]
