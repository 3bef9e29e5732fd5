"""audit/entries.py: every kind of entry survives its bytes, and nothing else is one."""

import importlib
import json
import pkgutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from audit import entries, entry_types
from audit.errors import EntryRefused, VerificationError
from tests.fakes.sample_study_log import SITES, SampleConsortium, digest, key

VECTORS: dict[str, str] = json.loads(
    (Path(__file__).parents[2] / "vectors/audit/entry.json").read_text(encoding="utf-8")
)
TYPES = entry_types.__path__
STAMP = entries.stamp(1_795_000_000_000, bytes(10))


def approved(**changed: Any) -> entries.StudyApproved:
    values: dict[str, Any] = {
        "actor": "site:cleveland",
        "site_seq": 1,
        "site_prev": entries.NO_ENTRY,
        "study": "heart-disease",
        "study_digest": digest("study"),
        "steward": "u:" + "ab" * 16,
        "statement": "I approve.",
    }
    return entries.StudyApproved(**STAMP, **(values | changed))


def started(**changed: Any) -> entries.RoundStarted:
    values: dict[str, Any] = {
        "study": "heart-disease",
        "round": 1,
        "attempt": 1,
        "kind": "train",
        "plan_sha256": digest("plan"),
        "participants": SITES,
        "threshold": 3,
        "model_digest": digest("model"),
    }
    return entries.RoundStarted(**STAMP, **(values | changed))


def test_every_entry_of_a_study_survives_its_bytes():
    for line in SampleConsortium().whole_study().lines:
        entry = entries.parse_entry(line)
        if isinstance(entry, entries.SITE_SIGNED):
            site = entry.actor.removeprefix("site:")
            assert entries.sign_site_entry(entry, key(site)) == line
            assert entries.verify_site_entry(line, key(site).public_key()) == entry
            assert entries.verify_site_entry(line, key(site).public_key().public_bytes_raw()) == entry
        else:
            assert entries.entry_bytes(entry) == line


def test_every_type_has_its_own_name_and_documents_itself():
    modules = [importlib.import_module(f"audit.entry_types.{one.name}") for one in pkgutil.iter_modules(TYPES)]
    written = {kind for module in modules for kind in vars(module).values() if getattr(kind, "TYPE", "")}
    assert written == set(entries.KINDS.values())
    assert {kind.__name__ for kind in written} <= set(entries.__all__)
    for name, kind in entries.KINDS.items():
        assert name == kind.TYPE
        assert kind.__doc__
        assert "body" not in {field.name for field in fields(kind)}


def test_vector():
    stored = VECTORS["stored"].encode()
    entry = entries.verify_site_entry(stored, bytes.fromhex(VECTORS["public_key"]))
    assert isinstance(entry, entries.ModelVerified)
    chain = entries.SiteChain(site="cleveland").admit(stored, entry)
    assert (chain.next_seq, chain.previous) == (2, VECTORS["next_site_prev"])
    with pytest.raises(VerificationError, match="signature"):
        entries.verify_site_entry(VECTORS["bad_signature"].encode(), bytes.fromhex(VECTORS["public_key"]))
    for bad in ("bad_spelling", "bad_unknown_key", "bad_type"):
        with pytest.raises(EntryRefused):
            entries.parse_entry(VECTORS[bad].encode())


def test_stamp():
    made = entries.stamp(1_795_000_000_123, bytes(range(10)))
    assert made["ts"] == "2026-11-18T11:06:40.123Z"
    assert made["id"][14] == "7"
    later = entries.stamp(1_795_000_000_124, bytes(10))
    assert made["id"] < later["id"]
    for bad in ((1, b"short"), (-1, bytes(10)), (2**47, bytes(10))):
        with pytest.raises(ValueError, match="10 random bytes"):
            entries.stamp(*bad)


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"study": "Heart"}, "study"),
        ({"study": "h"}, "study"),
        ({"study": "heart--disease"}, "study"),
        ({"round": 0}, "round"),
        ({"round": True}, "round"),
        ({"round": 1.0}, "round"),
        ({"round": 2**53}, "round"),
        ({"attempt": "1"}, "attempt"),
        ({"kind": "guess"}, "kind"),
        ({"plan_sha256": "AB" * 32}, "plan_sha256"),
        ({"plan_sha256": "ab" * 31}, "plan_sha256"),
        ({"plan_sha256": b"ab" * 32}, "plan_sha256"),
        ({"participants": ("hungary", "cleveland")}, "participants"),
        ({"participants": ("cleveland", "cleveland")}, "participants"),
        ({"participants": "cleveland"}, "participants"),
        ({"participants": tuple(f"site-{n:04d}" for n in range(1001))}, "participants"),
        ({"actor": "site:cleveland"}, "actor"),
        ({"actor": "root"}, "actor"),
        ({"outcome": "1"}, "outcome"),
        ({"ts": "2026-11-18T11:06:40Z"}, "ts"),
        ({"ts": "2026-13-18T11:06:40.000Z"}, "ts"),
        ({"id": "0190b2f2-7a3e-4c1a-9c11-8d3b6c0e1a22"}, "id"),
    ],
)
def test_a_field_that_is_not_allowed_cannot_be_built(changed, where):
    values = {field.name: getattr(started(), field.name) for field in fields(entries.RoundStarted)}
    with pytest.raises(EntryRefused) as refused:
        entries.RoundStarted(**(values | changed))
    assert refused.value.path == f"round.started.{where}" or refused.value.path.startswith(f"round.started.{where}[")
    assert "Nothing was written" in refused.value.advice()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 10**400, True, "1", None])
def test_numbers_must_be_finite_and_in_range(value):
    event = entries.PoissonSampledGaussian(noise_multiplier=value, sampling_rate=0.2, steps=2)
    with pytest.raises(EntryRefused):
        spent(event=event)


def spent(**changed: Any) -> entries.DpSpent:
    values: dict[str, Any] = {
        "actor": "site:cleveland",
        "site_seq": 1,
        "site_prev": entries.NO_ENTRY,
        "study": "heart-disease",
        "round": 1,
        "attempt": 1,
        "dataset": "heart",
        "event": entries.PoissonSampledGaussian(noise_multiplier=4, sampling_rate=0.2, steps=2),
        "epsilon": 0.5,
        "delta": 1e-3,
        "steps_total": 2,
    }
    return entries.DpSpent(**STAMP, **(values | changed))


def test_unknown_privacy_events_are_refused():
    good = {"kind": "poisson-sampled-gaussian", "noise_multiplier": 4.0, "sampling_rate": 0.2, "steps": 2}
    assert spent(event=good).event == spent().event
    for bad in ({**good, "kind": "laplace"}, {**good, "extra": 1}, {"kind": good["kind"]}, "gaussian", None):
        with pytest.raises(EntryRefused, match="poisson-sampled-gaussian"):
            spent(event=bad)


def test_shares_of_noise_are_an_event_of_their_own():
    good = {
        "kind": "poisson-sampled-discrete-gaussian",
        "noise_multiplier": 4.0,
        "sampling_rate": 0.2,
        "steps": 2,
        "clip_norm_l2": 1.0,
        "shares": 3,
        "grid_spacing": 2.0**-22,
        "dimension": 21,
    }
    event = spent(event=good).event
    assert isinstance(event, entries.PoissonSampledDiscreteGaussian)
    assert (event.shares, event.dimension, event.grid_spacing) == (3, 21, 2.0**-22)
    assert spent(event=event) == spent(event=good)
    for bad in ({**good, "shares": 0}, {**good, "shares": 2.0}, {**good, "kind": "poisson-sampled-gaussian"}):
        with pytest.raises(EntryRefused, match="event"):
            spent(event=bad)


def test_metrics_are_named_sorted_and_may_be_missing():
    common: dict[str, Any] = {"study": "heart-disease", "round": 1, "attempt": 1, "model_digest": digest("model")}
    entry = entries.ModelEvaluated(**STAMP, **common, metrics=(("loss", 0.5), ("auc", None)))
    assert entry.metrics == (("auc", None), ("loss", 0.5))
    assert b'"metrics":{"auc":null,"loss":0.5}' in entries.entry_bytes(entry)
    for bad in ((("auc", 1.0), ("auc", 2.0)), (("AUC", 1.0),), (("auc",),), 5, (("auc", float("nan")),)):
        with pytest.raises(EntryRefused):
            entries.ModelEvaluated(**STAMP, **common, metrics=bad)


def test_text_is_one_printable_line():
    for bad in ("", " padded", "two\nlines", "nul\x00", "x" * 501, "rtl\u202eoverride"):
        with pytest.raises(EntryRefused):
            approved(statement=bad)


def change(data: bytes, old: str, new: str) -> bytes:
    assert old.encode() in data
    return data.replace(old.encode(), new.encode(), 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"v":1', '"v":2'),
        ('"v":1', '"v":true'),
        ('"v":1', '"v":1.0'),
        ('"v":1', '"v":1,"v":1'),
        ('"round":1', '"round":1,"extra":0'),
        ('"round":1', '"round":01'),
        ('"round":1', '"round": 1'),
        ('"round":1', '"round":1e0'),
        ('"threshold":3', '"threshold":NaN'),
        ('"threshold":3', '"threshold":3,"more":3'),
        ('"threshold":3', '"threshold":3,"threshold":3'),
        ("round.started", "round.imagined"),
        ("coordinator", "coordinato\\u0072"),
        ('"body":{', '"sig":{},"body":{'),
        ("{", "[{"),
    ],
)
def test_only_the_canonical_spelling_is_an_entry(old, new):
    with pytest.raises(EntryRefused):
        entries.parse_entry(change(entries.entry_bytes(started()), old, new))


@pytest.mark.parametrize("data", [b"", b"1", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 60_000, b"x" * 65_536])
def test_what_is_no_entry_at_all(data):
    with pytest.raises(EntryRefused):
        entries.parse_entry(data)


def test_entries_are_bounded():
    columns = tuple(f"column-{number:04d}-{'x' * 50}" for number in range(500))
    common = {"actor": "site:cleveland", "site_seq": 1, "site_prev": entries.NO_ENTRY, "study": "heart-disease"}
    entry = entries.CohortSnapshot(
        **STAMP, **common, dataset="heart", columns=columns, patients="100-199", contract_digest=digest("c")
    )
    assert len(entries.sign_site_entry(entry, key("cleveland"))) < entries.ENTRY_BYTES_MAX
    with pytest.raises(EntryRefused, match="bytes"):
        entries.parse_entry(b"[" + b" " * entries.ENTRY_BYTES_MAX)


@pytest.mark.parametrize("bucket", ["100-199", "0-29", "5000+"])
def test_patients_are_a_range(bucket):
    assert entries.CohortSnapshot.__dataclass_fields__["patients"]
    common: dict[str, Any] = {"actor": "site:cleveland", "site_seq": 1, "site_prev": entries.NO_ENTRY}
    common |= {"study": "heart-disease", "dataset": "heart", "columns": ("age",), "contract_digest": digest("c")}
    assert entries.CohortSnapshot(**STAMP, **common, patients=bucket).patients == bucket
    with pytest.raises(EntryRefused, match="a range"):
        entries.CohortSnapshot(**STAMP, **common, patients="199")


def test_a_site_entry_needs_its_signature_and_a_coordinator_entry_has_none():
    with pytest.raises(EntryRefused, match="signed by its site"):
        entries.entry_bytes(approved())
    with pytest.raises(EntryRefused, match="a type that a site signs"):
        entries.verify_site_entry(entries.entry_bytes(started()), key("cleveland").public_key())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"ed25519":"', '"ed25519":"!'),
        ('"key":"', '"key":"0'),
        ('"sig":{', '"sig":{"a":1,'),
        ("}}", "} }"),
    ],
)
def test_the_signature_has_one_shape(old, new):
    with pytest.raises(EntryRefused):
        entries.parse_entry(change(entries.sign_site_entry(approved(), key("cleveland")), old, new))


def test_another_key_is_named():
    with pytest.raises(VerificationError, match="expected key"):
        entries.verify_site_entry(entries.sign_site_entry(approved(), key("hungary")), key("cleveland").public_key())


def test_chain():
    chain = entries.SiteChain(site="cleveland")
    first = approved()
    data = entries.sign_site_entry(first, key("cleveland"))
    chain = chain.admit(data, first)
    for wrong, message in (
        (approved(), "entry 2"),
        (approved(site_seq=3, site_prev=chain.previous), "entry 3"),
        (approved(site_seq=2), "previous entry"),
        (approved(site_seq=2, site_prev=chain.previous, actor="site:hungary"), "actor"),
    ):
        with pytest.raises(VerificationError, match=message):
            chain.admit(b"", wrong)
    chain.admit(b"next", approved(site_seq=2, site_prev=chain.previous))


def test_chains_replayed_from_a_log():
    sample = SampleConsortium().whole_study()
    assert entries.replay_chains(sample.lines) == sample.chains
    with pytest.raises(VerificationError, match="an enrolled site"):
        entries.replay_chains(line for line in sample.lines if b"site.enrolled" not in line)
    with pytest.raises(VerificationError, match="expected entry"):
        entries.replay_chains(line for line in sample.lines if b"cohort.snapshot" not in line)


def test_enrolled_anew_with_the_same_key_the_chain_goes_on():
    sample = SampleConsortium()
    sample.opening()
    sample.agreeing()
    again = next(line for line in sample.lines if b"site.enrolled" in line)
    chains = entries.replay_chains([*sample.lines, again])
    assert chains == sample.chains
    fresh = json.loads(again)
    fresh["body"]["signing_key"] = key("new").public_key().public_bytes_raw().hex()
    other = json.dumps(fresh, sort_keys=True, separators=(",", ":")).encode()
    assert entries.replay_chains([*sample.lines, other])[fresh["body"]["site"]].next_seq == 1
