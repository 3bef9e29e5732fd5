"""What `studies show` prints: the table, each part of what leaves, and what changed since another version."""

import dataclasses
import json

from consortium.contract.layout import LaneName, largest_layout
from consortium.contract.study import StudyFile
from site_agent.lane_words import _MEANS, lanes_of
from site_agent.study_changes import changes
from site_agent.study_sheet import sheet_of
from tests.fakes.site_world import make_world, small_study
from tests.unit.contract.test_algorithms import NO_PRIVACY

STUDY = small_study()
EARLIER = small_study(privacy={"epsilon": 0.5}, governance={"purpose": "Something else."})


def shown(world, study=STUDY, **options):
    return sheet_of(study, study.digest(), world.home.config, world.ledger, **options)


def test_every_fact_of_the_study_is_in_the_table(tmp_path):
    world = make_world(tmp_path, STUDY)
    facts = dict(shown(world, patients=45).facts)
    expected = {
        "digest": STUDY.digest(),
        "computed": "2 rounds of 1 steps, logistic",
        "columns read": "age, kind, outcome",
        "dataset here": "ward",
        "leaves a round": "1,364 bytes, masked",
        "epsilon": "1 at delta 0.001, per patient, for all rounds",
        "budget after": "6.631 of 7.631 left, for all later studies together",
        "takes part": "alder, birch, cedar, dogwood",
        "records kept": "10 years",
        "ends": "2035-12-31",
        "allowed here": "yes, by site.yaml and by the budget as they are",
    }
    assert {name: facts[name] for name in expected} == expected
    assert facts["patients here"].startswith("45 with complete records; 8317 declared")
    assert "73.2%" in facts["which means"]
    assert facts["threshold"].startswith("3: no fewer hospitals")
    assert "releases it to" in facts["model goes to"]
    assert "records were not read" in dict(shown(world).facts)["patients here"]
    plain = StudyFile.model_validate(
        STUDY.model_dump(mode="python", by_alias=True, exclude_none=True) | {"privacy": NO_PRIVACY}
    )
    found = dict(shown(world, plain).facts)
    assert found["epsilon"] == "NONE: no noise protects any patient"
    assert "budget after" not in found


def test_the_lanes_are_all_that_is_in_the_vector():
    assert set(_MEANS) == set(LaneName)
    lanes = lanes_of(STUDY)
    layout = largest_layout(STUDY, parameters=STUDY.parameters)
    assert [one.name for one in lanes] == [lane.name for lane in layout.lanes]
    assert sum(one.size_bytes for one in lanes) == layout.size_bytes
    assert [one.name for one in lanes if one.noise] == ["update"]
    budget = {"privacy": {"epsilon": 0.5, "delta": 1e-4}, "score_bins": 20, "subgroup_bins": 10}
    measured = small_study(evaluation=budget)
    assert {one.name for one in lanes_of(measured) if not one.noise} == {"weight", "sites_reporting"}


def test_what_changed_since_a_version_that_was_decided_about(tmp_path):
    world = make_world(tmp_path, STUDY)
    made = world.store.decision(STUDY.digest())
    before = dataclasses.replace(
        made, study_digest=EARLIER.digest(), document=EARLIER.document(), decision="rejected"
    )  # fmt: skip
    sheet = shown(world, decided=(made, before))
    (earlier,) = sheet.earlier  # the same digest is no other version
    assert (earlier.study_digest, earlier.decision) == (EARLIER.digest(), "rejected")
    assert [(one.path, one.before) for one in earlier.changes] == [
        ("governance.purpose", '"Something else."'),
        ("privacy.epsilon", "0.5"),
    ]
    text = sheet.text()
    assert f"Different from version {EARLIER.digest()[:16]}, which was rejected here" in text
    assert "privacy.epsilon\n    was  0.5\n    is   1" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert json.loads(json.dumps(sheet.to_json()))["earlier_versions"][0]["changes"][1]["path"] == "privacy.epsilon"


def test_changes_have_paths_as_in_the_yaml():
    before = b'{"a":{"b":1,"gone":true},"list":[1,2],"rows":[{"x":1},{"x":2}]}'
    now = b'{"a":{"b":2,"new":[]},"list":[1,3],"rows":[{"x":1},{"x":3}]}'
    found = [(one.path, one.before, one.now) for one in changes(before, now)]
    assert found == [
        ("a.b", "1", "2"),
        ("a.new", None, "[]"),
        ("list", "[1, 2]", "[1, 3]"),
        ("rows[1].x", "2", "3"),
        ("a.gone", "true", None),
    ]
    assert changes(now, now) == ()
