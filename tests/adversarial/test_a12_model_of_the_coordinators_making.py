"""A-12: the coordinator slips in a model of its own: between two rounds, after an evaluation, or in the archive.

Held by: the chain of model digests, the sites' signed confirmations, and the digest of the file (steps 14 and 15).
Tried: rows a12 of `mutations.py`.
"""

import pytest

from audit import entries, verify
from tests.fakes.sample_study_log import (
    STUDY,
    SampleConsortium,
    digest,
    evidence,
    failed_steps,
    model_file,
    pack,
    unpack,
)

CHAIN = "chain of models"


def begun(rounds=2):
    sample = SampleConsortium(rounds=rounds)
    sample.opening()
    sample.agreeing()
    return sample


def failed(tmp_path, sample):
    archive, policy = evidence(tmp_path, sample)
    return failed_steps(verify.check(str(archive), policy))


def test_the_next_round_begins_with_another_model(tmp_path):
    sample = begun()
    sample.one_round(1, next_model_digest=digest("planted"))
    sample.one_round(2)
    step = failed(tmp_path, sample)[CHAIN]
    assert "round.started, round 2" in step["where"]
    assert step["expected"] == f"model {digest('planted')}"


def test_the_sites_computed_another_model(tmp_path):
    sample = begun(1)
    sample.one_round(1, next_model_digest=digest("planted"))
    assert "model.verified of site:cleveland" in failed(tmp_path, sample)[CHAIN]["where"]


def test_a_round_closed_over_another_model_than_it_began_with(tmp_path):
    sample = begun(1)
    sample.one_round(1, model_digest=digest("planted"))
    assert "round.closed, round 1" in failed(tmp_path, sample)[CHAIN]["where"]


def test_an_evaluation_that_changes_the_model(tmp_path):
    sample = begun(1)
    sample.one_round(1)
    sample.one_round(2, kind="evaluate", next_model_digest=digest("planted"))
    assert "after an evaluation" in failed(tmp_path, sample)[CHAIN]["expected"]


def test_a_round_closed_twice(tmp_path):
    sample = begun(1)
    sample.one_round(1)
    sample.lines.append(next(line for line in sample.lines if b"round.closed" in line))
    assert failed(tmp_path, sample)[CHAIN]["expected"] == "a round that was started and not closed"


@pytest.mark.parametrize("kind", [entries.ModelReleased, entries.StudyCompleted])
def test_another_model_is_released(tmp_path, kind):
    sample = begun(1)
    sample.one_round(1)
    sample.coordinator(kind, study=STUDY, model_digest=digest("planted"))
    assert failed(tmp_path, sample)[CHAIN]["found"] == digest("planted")


def test_another_file_in_the_archive(tmp_path):
    archive, policy = evidence(tmp_path)
    files = unpack(archive) | {"model.safetensors": model_file(1)[0]}
    step = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", files)), policy))["model file"]
    assert (step["expected"], step["found"]) == (f"model {model_file(4)[1]}", model_file(1)[1])


def test_a_released_model_without_its_file(tmp_path):
    sample = SampleConsortium().whole_study()
    log = sample.open_log(tmp_path / "log")
    archive = sample.export(log, tmp_path / "e.zip", model=None).path
    log.close()
    assert failed_steps(verify.check(str(archive)))["model file"]["found"] == "no file"
