"""A study in the log, held against what the hospital itself knows: what agrees passes, what does not is named."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from audit import entries
from audit.verify import epsilon_upper
from consortium.contract.names import SiteId, StudyId
from site_agent.app import review_study
from site_agent.cli import app
from site_agent.ledger import Ledger, Limits
from site_agent.log_copy import decision_about, open_copy
from site_agent.seen_checkpoints import keep_seen
from site_agent.study_review import Cosigned, Counted, Left, OwnFacts, Status, Witnessed, review
from site_agent.training_spec import spec_of
from tests.fakes.evidence_home import ME, EvidenceHome
from tests.fakes.sample_study_log import (
    DELTA,
    RATE,
    SIGMA,
    SITES,
    STEPS,
    STUDY,
    SampleConsortium,
    digest,
    key,
    model_file,
    plausible_epsilon,
)
from tests.fakes.site_world import small_study

LOG = SampleConsortium().whole_study()
LINES = tuple(LOG.lines)
SEEN = Cosigned(site="cleveland", size=len(LINES), when="now")
SPENT = plausible_epsilon(LOG.steps[ME])


def leaf_of(kind, *, site=ME, number=1):
    """Where the site's so-manieth entry of a type stands."""
    found = [n for n, line in enumerate(LINES) if f'"type":"{kind}"'.encode() in line]
    if kind not in ("round.closed", "round.started", "study.created", "model.released"):
        found = [n for n in found if json.loads(LINES[n])["actor"] == f"site:{site}"]
    return found[number - 1]


def facts(**changed):
    mine = tuple(line for line in LINES if json.loads(line)["actor"] == f"site:{ME}")
    sent = [json.loads(line)["body"] for line in mine if b"update.submitted" in line]
    own = OwnFacts(
        site=ME,
        signing_key=key(ME).public_key().public_bytes_raw().hex(),
        study=STUDY,
        study_digest=LOG.study_digest,
        decision="approved",
        signed=mine,
        acknowledged=len(mine),
        counted=Counted(steps=LOG.steps[ME], unsettled=0, epsilon=SPENT, delta=DELTA),
        left=tuple(
            Left(leaf=n, sha256=body["masked_update_sha256"], size_bytes=body["size_bytes"])
            for n, body in enumerate(sent, start=1)
        ),
        last_model=(4, model_file(4)[1]),
        witnessed=Witnessed(size=len(LINES), root="ab" * 32, cosigned=(SEEN,), needed=1),
    )
    return replace(own, **changed)


def lines_of(log=LINES, **changed):
    return {line.title: line for line in review(log, facts(**changed)).lines}


def altered(kind, *, number=1, **changed):
    """The log with an entry of the coordinator's altered: its root is whatever the coordinator signs."""
    leaf = leaf_of(kind, number=number)
    record = json.loads(LINES[leaf])
    record["body"] |= changed
    data = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return (*LINES[:leaf], data, *LINES[leaf + 1 :])


def without(kind, *, number=1):
    """The log without one of this hospital's entries."""
    return tuple(line for leaf, line in enumerate(LINES) if leaf != leaf_of(kind, number=number))


SPENT_LEAF = leaf_of("dp.spent", number=5)


def test_all_of_it_agrees():
    found = review(LINES, facts())
    assert {line.title: line.status for line in found.lines} == dict.fromkeys(
        (
            "my approval",
            "the study",
            "my rounds",
            "my epsilon",
            "my bytes",
            "my entries",
            "the models",
            "the log",
            "seen by all",
        ),
        Status.PASS,
    )
    assert not found.failed
    said = lines_of()
    assert said["my approval"].said.startswith(f"leaf {leaf_of('study.approved')}, 2026-")
    assert said["my rounds"].said == "invited 6 times, 6 updates submitted, 5 in a sum"
    assert said["my epsilon"].said.startswith(f"{SPENT:.4f} at delta 0.001")
    assert said["my bytes"].said.startswith("7,632 bytes")
    assert "released at leaf" in said["the models"].said


@pytest.mark.parametrize(
    ("title", "log", "changed", "wanted"),
    [
        ("my approval", without("study.approved"), {},
         (leaf_of("round.started") - 1, "an approval by hungary before round 1", "none standing")),
        ("my approval", LINES, {"study_digest": "c" * 64}, (leaf_of("study.approved"), "c" * 64, LOG.study_digest)),
        ("the study", altered("study.created", study_digest="d" * 64), {},
         (leaf_of("study.created"), "decided about here", "d" * 64)),
        ("the study", LINES[:9], {}, (None, "a study.created entry", "none")),
        ("my rounds", altered("round.started", participants=["cleveland", "switzerland"]), {},
         (leaf_of("round.closed"), "an invitation of hungary", "none, and it is in the sum")),
        ("my rounds", without("update.submitted"), {},
         (leaf_of("round.closed") - 1, "an update.submitted entry of hungary", "none, and it is in the sum")),
        ("my epsilon", LINES, {"counted": Counted(steps=STEPS, unsettled=0, epsilon=0.1, delta=DELTA)},
         (SPENT_LEAF, "steps, signed for, in the ledger", str(STEPS))),
        ("my epsilon", LINES, {"counted": None}, (SPENT_LEAF, "in the ledger", "0")),
        ("my epsilon", LINES, {"counted": Counted(steps=LOG.steps[ME], unsettled=0, epsilon=SPENT + 0.01, delta=DELTA)},
         (SPENT_LEAF, "at least the ledger's epsilon", f"{SPENT:.6f}")),
        ("my epsilon", altered("study.created", epsilon=0.1), {},
         (SPENT_LEAF, "at most the study's epsilon of 0.1", f"{SPENT:.6f}")),
        ("my bytes", LINES, {"left": (Left(leaf=3, sha256=digest("masked hungary 1"), size_bytes=1271),)},
         (leaf_of("update.submitted"), "1271 bytes", "1272")),
        ("my bytes", LINES, {"left": ()},
         (leaf_of("update.submitted"), "the masked update in this hospital's own log", "none")),
        ("my bytes", LINES, {"left": (*facts().left, Left(leaf=9, sha256="e" * 64, size_bytes=5))},
         (None, "leaf 9 of this hospital's own log", "none was ever signed")),
        ("my entries", without("dp.spent", number=2), {},
         (leaf_of("update.submitted", number=2) - 1, "entry 8 of this hospital before its entry 9", "no such leaf")),
        ("my entries", (*LINES, LINES[leaf_of("dp.spent")]), {},
         (len(LINES), "each entry of this hospital once", f"that of leaf {leaf_of('dp.spent')} again")),
        ("my entries", LINES, {"signed": facts().signed[:-1]},
         (leaf_of("dp.certificate"), "that this hospital signed", "one that it never did")),
        ("the models", altered("round.closed", number=2, next_model_digest="f" * 64), {},
         (leaf_of("model.verified", number=2), "f" * 64, model_file(2)[1])),
        ("the models", LINES, {"last_model": (4, "b" * 64)},
         (leaf_of("round.closed", number=4), "computed here in round 4", model_file(4)[1])),
        ("the models", altered("model.released", model_digest="f" * 64), {},
         (leaf_of("model.released"), "of the last round", "f" * 64)),
    ],
)  # fmt: skip
def test_what_does_not_agree_is_named(title, log, changed, wanted):
    leaf, expected, found = wanted
    line = lines_of(log, **changed)[title]
    assert line.status is Status.FAIL
    assert (line.leaf, expected in line.expected, line.found) == (leaf, True, found)
    assert str(line.found) in line.said


def test_what_cannot_be_decided_is_no_pass():
    middle = LINES[: leaf_of("update.submitted", number=2)]
    found = lines_of(middle, last_model=None)
    assert found["my entries"].status is Status.UNKNOWN
    assert "from entry 9 on" in found["my entries"].said
    assert found["my epsilon"].status is found["my bytes"].status is Status.UNKNOWN
    early = lines_of(LINES[:12])
    assert early["my approval"].status is Status.UNKNOWN
    withdrawn = lines_of(decision="rejected")
    assert withdrawn["my approval"].status is Status.UNKNOWN
    few = lines_of(witnessed=replace(facts().witnessed, needed=3))
    assert few["seen by all"].status is Status.UNKNOWN
    assert f"cleveland ({len(LINES)} entries, now)" in few["seen by all"].said
    behind = lines_of(witnessed=replace(facts().witnessed, cosigned=(replace(SEEN, size=50),)))
    assert behind["seen by all"].status is Status.UNKNOWN


def test_an_entry_that_was_taken_in_long_ago_and_is_not_there():
    """The coordinator acknowledged it, the log went on for more than a minute, and it is missing at the end."""
    last = leaf_of("dp.certificate")
    cut = [line for n, line in enumerate(LINES) if n != last]
    late = json.loads(LINES[-1]) | {"ts": "2027-01-01T00:00:00.000Z"}
    cut[-1] = json.dumps(late, sort_keys=True, separators=(",", ":")).encode()
    line = lines_of(tuple(cut))["my entries"]
    assert (line.status, line.expected) == (Status.FAIL, "entry 21, which the coordinator said is in the log")
    assert lines_of(tuple(cut), acknowledged=20)["my entries"].status is Status.UNKNOWN


def test_nothing_is_said_of_a_log_that_cannot_be_read():
    (line,) = review((*LINES[:30], b"nonsense", *LINES[30:]), facts()).lines
    assert (line.title, line.status, line.leaf) == ("the log", Status.FAIL, 30)


def test_another_key_in_this_hospitals_name():
    enrolment = next(n for n, line in enumerate(LINES) if b'"site.enrolled"' in line and ME.encode() in line)
    other = json.loads(LINES[enrolment])
    other["body"]["signing_key"] = "9" * 64
    data = json.dumps(other, sort_keys=True, separators=(",", ":")).encode()
    line = lines_of((*LINES, data))["my entries"]
    assert (line.status, line.leaf) == (Status.FAIL, len(LINES))
    earlier = (*LINES[:enrolment], data, *LINES[enrolment:])  # an earlier home of this hospital
    assert lines_of(earlier)["my entries"].status is Status.PASS


# --- gathered from a home -------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    """A hospital whose study is a real one, in the middle of it, with three witnesses."""
    made = EvidenceHome(tmp_path)
    study = small_study(id=STUDY, sites={"required": SITES, "minimum": 3})
    made.consortium.document, made.consortium.study_digest = study.document(), study.digest()
    made.consortium.opening()
    made.consortium.agreeing()
    for site in SITES:
        made.witness(site, cosigns=site != "switzerland")
    made.consortium.one_round(1, spend=lambda _, steps: epsilon_upper({(SIGMA, RATE): steps}, DELTA))
    event = spec_of(study, declared_patients=100).privacy.study_event()
    mechanism = replace(event.mechanism, noise_multiplier=SIGMA, sampling_rate=RATE, steps=STEPS)
    ledger = Ledger(made.folder / "ledger.db")
    ledger.reserve(
        dataset="heart",
        study=StudyId(STUDY),
        study_digest=study.digest(),
        round_number=1,
        attempt=1,
        event=replace(event, mechanism=mechanism),
        limits=Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3),
    )
    return made.build()


def test_a_home_is_reviewed_on_one_screen(made):
    found = {line.title: line for line in review_study(made.folder, STUDY).lines}
    assert {title for title, line in found.items() if line.status is not Status.PASS} == set()
    size = len(made.consortium.lines)
    assert found["seen by all"].said == (
        f"the first {size} entries, and so all of the study, have been cosigned by 3 or more: "
        f"cleveland ({size} entries, 2026-11-18 11:06:40 UTC), hungary ({size} entries, 2026-11-18 11:06:41 UTC), "
        f"va-long-beach ({size} entries, 2026-11-18 11:06:42 UTC)"
    )
    printed = CliRunner().invoke(app, ["verify-study", STUDY, "--home", str(made.folder)])
    assert printed.exit_code == 0
    assert [line[:23] for line in printed.stdout.splitlines()][:2] == [
        "PASS      my approval  ",
        "PASS      the study    ",
    ]


def test_a_study_that_does_not_agree_ends_in_failure(made):
    made.leaves("e" * 64, 5)
    printed = CliRunner().invoke(app, ["verify-study", STUDY, "--home", str(made.folder), "--json"])
    assert printed.exit_code == 1
    (line,) = [line for line in json.loads(printed.stdout)["lines"] if line["status"] == "FAIL"]
    assert (line["title"], line["found"]) == ("my bytes", "none was ever signed")


def test_what_hospitals_cosigned_last_is_kept_beside_the_copy(made):
    """Under the copy's own checkpoint there may be one line alone; a damaged file, or line, counts for nothing."""
    folder = made.folder / "log"
    view = open_copy(made.home)
    note = view.checkpoint()
    view.close()
    path = folder / "public/checkpoint"
    keep_seen(folder, {SiteId(site): note for site in SITES})
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))  # the log's line is left
    assert [line.status for line in review_study(made.folder, STUDY).lines if line.title == "seen by all"] == ["PASS"]
    kept = (folder / "cosigned.json").read_text()
    for damaged in ("[]", "{", kept.replace("witness/hungary ", "witness/hungary A"), '{"hungary": 3}'):
        (folder / "cosigned.json").write_text(damaged)
        (line,) = [line for line in review_study(made.folder, STUDY).lines if line.title == "seen by all"]
        assert line.status is Status.UNKNOWN


def test_a_forged_entry_is_named_by_both(made):
    """Another entry stands in the copy where this hospital's belongs."""
    with made.store._transaction() as connection:
        connection.execute("UPDATE events SET entry = ? WHERE sequence = 3", (b"{}",))
    found = {line.title: line for line in review_study(made.folder, STUDY).lines}
    assert found["my entries"].status is found["seen by all"].status is Status.FAIL
    assert "hospital's number 3" in found["seen by all"].found


def test_the_version_that_the_log_has_is_reviewed(made):
    log = open_copy(made.home)
    assert decision_about(log, made.store, STUDY).study_digest == made.consortium.study_digest
    log.close()
    assert entries.parse_entry(made.store.signed_entries()[0]).TYPE == "study.approved"
