"""Studies: the good one, many bad ones with path, line and words, and the canonical document."""

from pathlib import Path
from typing import get_args

import pytest

from consortium.contract.catalogue import (
    LOSSES,
    MECHANISMS,
    METRICS,
    OPTIMIZERS,
    Adam,
    MechanismName,
    Sgd,
    SuiteChoice,
)
from consortium.contract.errors import DocumentInvalid, FileInvalid, Problem
from consortium.contract.layout import measures
from consortium.contract.names import RoundNumber
from consortium.contract.networks import NETWORKS, Mlp, NetworkName
from consortium.contract.plan import RoundKind
from consortium.contract.schema import describe
from consortium.contract.study import StudyFile, load_study
from consortium.contract.study_data import NumberFeature, TabularData
from consortium.contract.subgroups import all_cells
from privacy.secagg.suites import SuiteName

STUDY = """\
schema: consortium/study/v1
id: a-study
title: A study
governance:
  sponsor: Someone
  contact: someone@example.org
  purpose: To test.
  ethics: {reference: EK 12/2027, authority: Ethics committee}
  legal_basis:
    gdpr_article_6: 6(1)(e)
    gdpr_article_9: 9(2)(j)
  retention_years: 10
  expires: 2035-12-31
sites:
  required: [north, south, east, west]
  minimum: 3
data:
  kind: tabular
  patient_id: patient
  features:
    age:
      type: number
      unit: years
      range: [0, 120]
      scale: {mean: 54, std: 9}
      absent: -1
    cp:
      type: category
      values: [1, 2, 3]
  label: {name: num, type: binary, positive_above: 0}
  missing: drop
  minimum_patients: 30
  split: {test_fraction: 0.34, seed: 43, stratify: true}
model:
  network: mlp
  args: {hidden: [8], activation: tanh}
training:
  rounds: 20
  local_steps: 2
  sampling_rate: 0.2
  optimizer: {name: sgd, learning_rate: 0.5, momentum: 0}
  algorithm: fedavg
  server_learning_rate: 1
  weighting: uniform
  loss: binary-cross-entropy
  seed: 1
privacy:
  mechanism: local-dp-sgd
  unit: patient
  epsilon: 1.5
  delta: 1e-3
  clip_norm_l2: 1
  max_records_per_patient: 1
aggregation:
  protocol: secagg-v1
  modulus_bits: 32
  threshold: 3
  round_deadline_s: 600
  upload_deadline_s: 120
  update_clip: 4
  max_patients_per_site: 100000
evaluation:
  split: site-held-out
  metrics: [auc, accuracy]
  every_rounds: 1
  score_bins: 100
  decision_threshold: 0.5
"""


def loaded(tmp_path: Path, text: str) -> StudyFile:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return load_study(file)


def problems(tmp_path: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(FileInvalid) as caught:
        loaded(tmp_path, text)
    return caught.value.problems


def test_a_good_study(tmp_path: Path) -> None:
    study = loaded(tmp_path, STUDY)
    assert study.study_id == "a-study"
    assert study.training.rounds == 20
    assert study.privacy.delta == 1e-3
    assert study.sites.roster == ("east", "north", "south", "west")
    assert isinstance(study.data, TabularData)
    assert study.data.input_names == ("age", "cp=2", "cp=3")
    assert (study.data.input_shape, study.data.outputs, study.data.label_shape) == ((3,), 1, ())
    assert isinstance(study.model, Mlp)
    assert study.model.args.hidden == (8,)
    age = study.data.features["age"]
    assert isinstance(age, NumberFeature)
    assert (age.range, age.absent) == ((0.0, 120.0), -1.0)


BAD = [
    # whole sections and keys
    ("schema: consortium/study/v1", "schema: consortium/study/v2", "schema", 1, '"consortium/study/v2"', "study/v1"),
    ("title: A study\n", "", "title", 1, "nothing", "one line of text"),
    ("title: A study", "title: ''", "title", 3, '""', "one line of text"),
    ("title: A study", 'title: "a\\nb"', "title", 3, '"a\\nb"', "one line of text"),
    ("title: A study", 'title: "\\e[2J"', "title", 3, '"\\x1b[2J"', "one line of text"),
    ("title: A study", "title: [A]", "title", 3, "a list of 1", "one line of text"),
    ("title: A study", "titel: A study\ntitle: A", "titel", 3, "an unknown key", "title (did you mean that?)"),
    ("id: a-study", "id: A Study", "id", 2, '"A Study"', "3 to 64 characters of a-z"),
    ("id: a-study", "id: 2027-12-31", "id", 2, "2027-12-31", "a study name"),
    # governance
    ("purpose: To test.", 'purpose: "To\\e test."', "governance.purpose", 7, '"To\\x1b test."', "text, at most 4000"),
    ("purpose: To test.", 'purpose: " "', "governance.purpose", 7, '" "', "text, at most 4000"),
    ("  contact: someone@example.org\n", "", "governance.contact", 4, "nothing", "one line of text"),
    ("retention_years: 10", "retention_years: 0", "governance.retention_years", 12, "0", "from 1 to 100"),
    ("retention_years: 10", "retention_years: 1.5", "governance.retention_years", 12, "1.5", "a whole number"),
    ("2035-12-31", "2035-02-31", "governance.expires", 13, '"2035-02-31"', "a date such as"),
    ("2035-12-31", "'2035-12-31'", "governance.expires", 13, '"2035-12-31"', "without quotes"),
    ("6(1)(e)", "6(1)(z)", "governance.legal_basis.gdpr_article_6", 10, '"6(1)(z)"', "6(1)(a) to 6(1)(f)"),
    (
        "\n    gdpr_article_6: 6(1)(e)\n    gdpr_article_9: 9(2)(j)", " {}",
        "governance.legal_basis", 9, "no legal basis", "or hipaa",
    ),
    (
        "    gdpr_article_9: 9(2)(j)\n", "",
        "governance.legal_basis", 9, "gdpr_article_6 without gdpr_article_9", "both",
    ),
    # sites
    ("[north, south, east, west]", "[north, south]", "sites.required", 15, "a list of 2", "a list of 3 to 1024"),
    ("[north, south, east, west]", "north", "sites.required", 15, '"north"', "a list of 3 to 1024"),
    ("south, east", "north, east", "sites.required[1]", 15, '"north" a second time', "every hospital once"),
    ("south, east", "South, east", "sites.required[1]", 15, '"South"', "a site name: 3 to 40"),
    ("south, east", "no, east", "sites.required[1]", 15, '"no"', "a site name: 3 to 40"),
    ("  minimum: 3", "  minimum: 2", "sites.minimum", 16, "2", "a whole number from 3 to 1024"),
    ("  minimum: 3", "  minimum: 5", "sites.minimum", 16, "5 with 4 hospitals", "from 3 to 4"),
    # data
    ("kind: tabular", "kind: films", "data.kind", 18, '"films"', "one of tabular, imaging"),
    ("patient_id: patient", "patient_id: age", "data.patient_id", 19, '"age"', "not among the features"),
    ("patient_id: patient", "patient_id: num", "data.patient_id", 19, '"num"', "other than the label's"),
    ("patient_id: patient", "patient_id: pa tient", "data.patient_id", 19, '"pa tient"', "a column name"),
    ("name: num", "name: cp", "data.label.name", 30, '"cp"', "not among the features"),
    ("    age:", "    a ge:", "data.features.a ge", 21, '"a ge"', "a column name"),
    ("type: number", "type: text", "data.features.age.type", 22, '"text"', "one of number, category"),
    ("      type: number\n", "", "data.features.age.type", 21, "nothing", "one of number, category"),
    ("[0, 120]", "[120, 0]", "data.features.age.range", 24, "120 to 0", "the smaller bound first"),
    ("[0, 120]", "[0, 120, 3]", "data.features.age.range", 24, "a list of 3", "a list of 2"),
    ("[0, 120]", "[0, .inf]", "data.features.age.range[1]", 24, '".inf"', "a number"),
    ("[0, 120]", "[0, 1e999]", "data.features.age.range[1]", 24, "inf", "a number"),
    ("mean: 54", "mean: 154", "data.features.age.scale.mean", 25, "154", "0 to 120"),
    ("std: 9", "std: 0", "data.features.age.scale.std", 25, "0", "a number greater than 0"),
    ("      scale: {mean: 54, std: 9}\n", "", "data.features.age.absent", 25, "-1", "only together with scale"),
    ("[1, 2, 3]", "[1]", "data.features.cp.values", 29, "a list of 1", "a list of 2 to 1000"),
    ("[1, 2, 3]", "[1, 2, 2]", "data.features.cp.values[2]", 29, "2 a second time", "every value once"),
    ("[1, 2, 3]", "[1, two, 3]", "data.features.cp.values[1]", 29, '"two"', "all of one sort"),
    ("[1, 2, 3]", "[1, 2.5, 3]", "data.features.cp.values[1]", 29, "2.5", "a whole number or a line of text"),
    ("[1, 2, 3]", "[1, true, 3]", "data.features.cp.values[1]", 29, "true", "a whole number or a line of text"),
    ("missing: drop", "missing: impute", "data.missing", 31, '"impute"', "drop"),
    ("minimum_patients: 30", "minimum_patients: 0", "data.minimum_patients", 32, "0", "a whole number from 1"),
    ("test_fraction: 0.34", "test_fraction: 1", "data.split.test_fraction", 33, "1", "greater than 0 and less than 1"),
    ("stratify: true", "stratify: yes", "data.split.stratify", 33, '"yes"', "true or false"),
    # model
    ("network: mlp", "network: os.system", "model.network", 35, '"os.system"', "one of logistic, mlp"),
    ("network: mlp", "network: logistic", "model.args.hidden", 36, "an unknown key", "no key at all"),
    ("hidden: [8]", "hidden: []", "model.args.hidden", 36, "a list of 0", "a list of 1 to 8"),
    ("hidden: [8]", "hidden: [8, 99999]", "model.args.hidden[1]", 36, "99999", "a whole number from 1 to 4096"),
    ("activation: tanh", "activation: sin", "model.args.activation", 36, '"sin"', "one of relu, tanh, gelu"),
    # training
    ("rounds: 20", 'rounds: "20"', "training.rounds", 38, '"20"', "a whole number from 1 to 100000"),
    ("rounds: 20", "rounds: 20.0", "training.rounds", 38, "20", "a whole number from 1 to 100000"),
    ("local_steps: 2", "local_steps: true", "training.local_steps", 39, "true", "a whole number"),
    ("sampling_rate: 0.2", "sampling_rate: 1.01", "training.sampling_rate", 40, "1.01", "at most 1"),
    ("sampling_rate: 0.2", "sampling_rate: 0", "training.sampling_rate", 40, "0", "greater than 0"),
    ("name: sgd", "name: lion", "training.optimizer.name", 41, '"lion"', "one of sgd, adam"),
    ("momentum: 0", "momentum: 1", "training.optimizer.momentum", 41, "1", "at least 0 and less than 1"),
    ("learning_rate: 0.5", "learning_rate: fast", "training.optimizer.learning_rate", 41, '"fast"', "a number"),
    ("weighting: uniform", "weighting: loud", "training.weighting", 44, '"loud"', "one of uniform, patients"),
    ("  seed: 1\n", "  seed: -1\n", "training.seed", 46, "-1", "a whole number from 0 to 4294967295"),
    # privacy
    ("mechanism: local-dp-sgd", "mechanism: none", "privacy.justification", 47, "nothing", "text, at most"),
    ("unit: patient\n", "unit: patient\n  colluding: 0\n", "privacy.colluding", 50, "0", "nothing with local-dp-sgd"),
    ("mechanism: local-dp-sgd", "mechanism: magic", "privacy.mechanism", 48, '"magic"', "local-dp-sgd"),
    ("unit: patient\n", "unit: record\n", "privacy.unit", 49, '"record"', "patient"),
    ("epsilon: 1.5", "epsilon: 0", "privacy.epsilon", 50, "0", "a number greater than 0"),
    ("epsilon: 1.5", "epsilon: -1", "privacy.epsilon", 50, "-1", "a number greater than 0"),
    ("epsilon: 1.5", "epsilon: '1.5'", "privacy.epsilon", 50, '"1.5"', "a number greater than 0"),
    ("epsilon: 1.5", "epsilon: .inf", "privacy.epsilon", 50, '".inf"', "a number greater than 0"),
    ("epsilon: 1.5", "epsilon:", "privacy.epsilon", 50, "nothing", "a number greater than 0"),
    ("delta: 1e-3", "delta: 1", "privacy.delta", 51, "1", "greater than 0 and less than 1"),
    ("delta: 1e-3", "delta: 0", "privacy.delta", 51, "0", "greater than 0 and less than 1"),
    ("delta: 1e-3", "delta: 0.04", "privacy.delta", 51, "0.04", "a number less than 1/30"),
    ("clip_norm_l2: 1", "clip_norm_l2: 0", "privacy.clip_norm_l2", 52, "0", "a number greater than 0"),
    # aggregation
    ("protocol: secagg-v1", "protocol: plain", "aggregation.protocol", 55, '"plain"', "secagg-v1"),
    ("modulus_bits: 32", "suite: P256\n  modulus_bits: 32", "aggregation.suite", 56, '"P256"', "hybrid-pq, p256"),
    ("modulus_bits: 32", "modulus_bits: 33", "aggregation.modulus_bits", 56, "33", "one of 16, 32, 64"),
    ("modulus_bits: 32", "modulus_bits: 16", "aggregation.max_patients_per_site", 61, "modulus_bits 16", "would wrap"),
    ("threshold: 3\n", "threshold: 2\n", "aggregation.threshold", 57, "2 with 4 hospitals", "from 3 to 4"),
    ("threshold: 3\n", "threshold: 5\n", "aggregation.threshold", 57, "5 with 4 hospitals", "from 3 to 4"),
    ("threshold: 3\n", "threshold: 1\n", "aggregation.threshold", 57, "1", "from"),
    ("round_deadline_s: 600", "round_deadline_s: 0", "aggregation.round_deadline_s", 58, "0", "greater than 0"),
    (
        "upload_deadline_s: 120", "upload_deadline_s: 601",
        "aggregation.upload_deadline_s", 59, "601", "at most round_deadline_s, 600",
    ),
    ("update_clip: 4", "update_clip: 0", "aggregation.update_clip", 60, "0", "a number from 1e-09 to 1000000"),
    ("update_clip: 4", "update_clip: 1e-320", "aggregation.update_clip", 60, "1e-320", "from 1e-09 to 1000000"),
    ("update_clip: 4", "update_clip: 4\n  tensor_clips: {}", "aggregation.tensor_clips", 61, "an empty", "of 1 to 64"),
    ("update_clip: 4", "update_clip: 4\n  tensor_clips: 3", "aggregation.tensor_clips", 61, "3", "of 1 to 64"),
    (
        "update_clip: 4", "update_clip: 4\n  tensor_clips:\n    0.weight: 1\n    0.bias: 0",
        "aggregation.tensor_clips.0.bias", 63, "0", "a number from 1e-09 to 1000000",
    ),
    (
        "update_clip: 4", "update_clip: 4\n  tensor_clips:\n    0.weight: 1\n    0.[ab]: 2",
        "aggregation.tensor_clips.0.[ab]", 63, '"0.[ab]"', "a parameter's name, or a pattern with '*'",
    ),
    (
        "update_clip: 4", "update_clip: 4\n  tensor_clips:\n    0.weight: 1\n    head.*: 2",
        "aggregation.tensor_clips.head.*", 63, "a name that no parameter", "one of 0.bias, 0.weight, 2.bias, 2.weight",
    ),
    (
        "update_clip: 4", "update_clip: 4\n  tensor_clips:\n    0.weight: 1\n    '*.weight': 2",
        "aggregation.tensor_clips.0.weight", 62, '"0.weight", which "*.weight" names too', "one name or pattern",
    ),
    (
        "max_patients_per_site: 100000", "max_patients_per_site: 29",
        "data.minimum_patients", 32, "30", "at most aggregation.max_patients_per_site, 29",
    ),
    # evaluation
    ("[auc, accuracy]", "[]", "evaluation.metrics", 64, "a list of 0", "a list of 1 to 16"),
    ("[auc, accuracy]", "[auc, f1]", "evaluation.metrics[1]", 64, '"f1"', "one of auc, accuracy, loss"),
    ("[auc, accuracy]", "[auc, auc]", "evaluation.metrics[1]", 64, "auc a second time", "every metric once"),
    ("every_rounds: 1", "every_rounds: 21", "evaluation.every_rounds", 65, "21", "at most training.rounds, 20"),
    ("score_bins: 100", "score_bins: 1", "evaluation.score_bins", 66, "1", "a whole number from 2 to 10000"),
    ("decision_threshold: 0.5", "decision_threshold: 1", "evaluation.decision_threshold", 67, "1", "less than 1"),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=[f"{path}: {found}" for _, _, path, _, found, _ in BAD])
def test_a_bad_study_names_the_place_the_value_and_what_is_allowed(
    tmp_path: Path, case: tuple[str, str, str, int, str, str]
) -> None:
    old, new, path, line, found, allowed = case
    assert old in STUDY
    everything = problems(tmp_path, STUDY.replace(old, new, 1))
    problem = next((p for p in everything if p.path == path), None)
    assert problem is not None, everything
    assert problem.line == line
    assert found in problem.found
    assert allowed in problem.allowed


def test_everything_wrong_is_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = STUDY
    for old, new in [
        ("id: a-study", "id: A"),
        ("  contact: someone@example.org", "  contakt: someone@example.org"),
        ("expires: 2035-12-31", "expires: never"),
        ("[0, 120]", "[120, 0]"),
        ("network: mlp", "network: lenet"),
        ("epsilon: 1.5", "epsilon: -1"),
        ("delta: 1e-3", "delta: 0.5"),
        ("threshold: 3", "threshold: 5"),
        ("upload_deadline_s: 120", "upload_deadline_s: 1000"),
    ]:
        text = text.replace(old, new, 1)
    assert [(p.line, p.path) for p in problems(tmp_path, text)] == [
        (2, "id"),
        (4, "governance.contact"),
        (6, "governance.contakt"),
        (13, "governance.expires"),
        (24, "data.features.age.range"),
        (35, "model.network"),
        (50, "privacy.epsilon"),
        (51, "privacy.delta"),
        (57, "aggregation.threshold"),
        (59, "aggregation.upload_deadline_s"),
    ]


def test_the_message_of_a_file_names_it_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileInvalid) as caught:
        loaded(tmp_path, STUDY.replace("epsilon: 1.5", "epsilon: -1"))
    assert str(caught.value) == (
        f"{tmp_path / 'study.yaml'} is not valid:\n"
        "  line 50, privacy.epsilon: found -1; allowed: a number greater than 0"
    )
    assert "Put right the place listed above" in caught.value.advice()


@pytest.mark.parametrize(
    ("sites", "threshold", "good"),
    [
        (3, 1, False),
        (3, 2, True),
        (3, 3, True),
        (4, 2, False),
        (4, 3, True),
        (5, 2, False),
        (5, 3, True),
        (5, 6, False),
    ],
)
def test_threshold_is_more_than_half_and_at_most_all(tmp_path: Path, sites: int, threshold: int, good: bool) -> None:
    names = ", ".join(f"site-{index}" for index in range(sites))
    text = STUDY.replace("north, south, east, west", names).replace("threshold: 3\n", f"threshold: {threshold}\n", 1)
    if good:
        assert loaded(tmp_path, text).aggregation.threshold == threshold
    else:
        assert [p.path for p in problems(tmp_path, text)] == ["aggregation.threshold"]


def of_sites(count: int, *, bits: int, patients: int, clip: str = "4") -> str:
    names = ", ".join(f"site-{index:03}" for index in range(count))
    text = STUDY.replace("north, south, east, west", names)
    text = text.replace("threshold: 3\n", f"threshold: {count // 2 + 1}\n", 1)
    text = text.replace("modulus_bits: 32", f"modulus_bits: {bits}").replace("update_clip: 4", f"update_clip: {clip}")
    return text.replace("site: 100000", f"site: {patients}")


def in_groups(
    count: int, *, minimum: int = 200, group_size: str = "  group_size: 100\n", weighting: str = "uniform"
) -> str:
    text = of_sites(count, bits=32, patients=1000).replace("  minimum: 3\n", f"  minimum: {minimum}\n", 1)
    text = text.replace("weighting: uniform", f"weighting: {weighting}")
    return text.replace("  modulus_bits", group_size + "  modulus_bits", 1)


def test_more_hospitals_than_one_graph_holds_are_summed_in_groups(tmp_path: Path) -> None:
    study = loaded(tmp_path, in_groups(600))
    assert study.aggregation.group_size == 100
    assert study.sites_in_a_sum == -(-301 * 100 // 600) == 51
    assert study.sites_that_open == 51
    assert not measures(study, RoundKind.TRAIN, RoundNumber(1))
    assert not measures(study, RoundKind.EVALUATE, RoundNumber(study.training.rounds + 1))
    assert loaded(tmp_path, in_groups(256, minimum=3, group_size="")).aggregation.group_size is None


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        (in_groups(257, group_size=""), "aggregation.group_size", "a whole number from 64 to 128"),
        (in_groups(600, group_size="  group_size: 63\n"), "aggregation.group_size", "from 64 to 128"),
        (in_groups(600, group_size="  group_size: 129\n"), "aggregation.group_size", "from 64 to 128"),
        (in_groups(600, minimum=99), "aggregation.group_size", "at most sites.minimum, 99"),
        (in_groups(600, weighting="patients"), "training.weighting", "uniform, with aggregation.group_size"),
    ],
)
def test_groups_that_promise_too_little(tmp_path: Path, text: str, path: str, allowed: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.path == path
    assert allowed in problem.allowed


def test_a_small_ring_is_refused_where_updates_would_be_mostly_rounding(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, of_sites(128, bits=16, patients=100))
    assert (problem.path, problem.line) == ("aggregation.modulus_bits", 56)
    assert problem.found == "16 with 128 hospitals"
    assert problem.allowed == (
        "32, or fewer hospitals: with 16 bits an update would travel in 128 steps from 0 to update_clip, 4; at least "
        "256 are needed, which 16 bits have for up to 127 hospitals"
    )
    assert loaded(tmp_path, of_sites(127, bits=16, patients=100)).aggregation.modulus_bits == 16
    assert loaded(tmp_path, of_sites(128, bits=32, patients=100)).aggregation.modulus_bits == 32


@pytest.mark.parametrize("clip", ["1e-9", "0.3", "3.99", "4", "4.01", "7", "1e6"])
def test_the_number_of_hospitals_said_to_fit_a_small_ring_fits(tmp_path: Path, clip: str) -> None:
    (problem,) = problems(tmp_path, of_sites(128, bits=16, patients=100, clip=clip))
    most = int(problem.allowed.removesuffix(" hospitals").rsplit(" ", 1)[1])
    assert 50 <= most <= 127
    assert loaded(tmp_path, of_sites(most, bits=16, patients=100, clip=clip))
    assert [p.path for p in problems(tmp_path, of_sites(most + 1, bits=16, patients=100, clip=clip))] == [
        "aggregation.modulus_bits"
    ]


def test_a_small_ring_is_refused_for_a_clip_of_a_single_parameter_too(tmp_path: Path) -> None:
    text = of_sites(100, bits=16, patients=100).replace("update_clip: 4", "update_clip: 4\n  tensor_clips: {0.*: 5.5}")
    (problem,) = problems(tmp_path, text)
    assert problem.path == "aggregation.modulus_bits"
    assert "in 176 steps from 0 to its clip, 5.5;" in problem.allowed


def test_counts_that_would_wrap_are_refused_with_what_would_fit(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, of_sites(4, bits=16, patients=8191))
    assert (problem.path, problem.line) == ("aggregation.max_patients_per_site", 61)
    assert problem.found == "8191 with 4 hospitals and modulus_bits 16"
    assert problem.allowed == "at most 8190, or modulus_bits 32: the sum over all hospitals would wrap"
    assert loaded(tmp_path, of_sites(4, bits=16, patients=8190))


# --- the document --------------------------------------------------------------------------------------------------


def test_document_and_digest_are_frozen(tmp_path: Path) -> None:
    # A change here changes what every hospital has approved: it needs a new schema version.
    study = loaded(tmp_path, STUDY)
    assert study.digest() == "3555c5ab66419e1ce8285819ed6ad6f97ba0590104701bb9f3aa35bc2b214ab3"
    assert study.document().startswith(b'{"aggregation":{"max_patients_per_site":100000,"modulus_bits":32,')


def test_the_suite_is_in_the_document(tmp_path: Path) -> None:
    study = loaded(tmp_path, STUDY)
    other = loaded(tmp_path, STUDY.replace("modulus_bits: 32", "suite: p256\n  modulus_bits: 32"))
    same = loaded(tmp_path, STUDY.replace("modulus_bits: 32", "suite: hybrid-pq\n  modulus_bits: 32"))
    assert (study.aggregation.suite, other.aggregation.suite) == ("hybrid-pq", "p256")
    assert study.digest() == same.digest() != other.digest()
    assert b'"suite":"p256"' in other.document()
    # The names are those of the suites themselves.
    assert list(get_args(SuiteChoice)) == list(SuiteName)


def test_clips_by_parameter_are_in_the_document_whatever_their_order(tmp_path: Path) -> None:
    first = loaded(tmp_path, STUDY.replace("update_clip: 4", "update_clip: 4\n  tensor_clips: {2.*: 2, 0.bias: 0.5}"))
    again = loaded(tmp_path, STUDY.replace("update_clip: 4", "update_clip: 4\n  tensor_clips: {0.bias: .5, 2.*: 2.0}"))
    assert first == again
    assert first.document() == again.document()
    assert b'"tensor_clips":{"0.bias":0.5,"2.*":2.0}' in first.document()
    assert StudyFile.from_document(first.document()) == first
    assert b"tensor_clips" not in loaded(tmp_path, STUDY).document()


def test_comments_blanks_order_and_spelling_of_numbers_change_nothing(tmp_path: Path) -> None:
    study = loaded(tmp_path, STUDY)
    head, tail = STUDY.split("governance:", 1)
    other = "# a comment\ngovernance:" + tail.replace("delta: 1e-3", "delta:   0.001 # same").replace(
        "momentum: 0", "momentum: 0.0"
    )
    other += head
    age, rest = other.index("    age:"), other.index("    cp:")
    end = other.index("  label:")
    other = other[:age] + other[rest:end] + other[age:rest] + other[end:]
    again = loaded(tmp_path, other)
    assert again.document() == study.document()
    assert again.digest() == study.digest()
    assert again.data.input_names == study.data.input_names


def test_every_value_is_in_the_document(tmp_path: Path) -> None:
    study = loaded(tmp_path, STUDY)
    for old, new in [("epsilon: 1.5", "epsilon: 1.25"), ("seed: 43", "seed: 44"), ("title: A", "title: B"),
                     ("absent: -1", "absent: -2"), ("[8]", "[9]"), ("2035", "2036")]:  # fmt: skip
        assert loaded(tmp_path, STUDY.replace(old, new)).digest() != study.digest()


def test_a_document_reads_back(tmp_path: Path) -> None:
    study = loaded(tmp_path, STUDY)
    assert StudyFile.from_document(study.document()) == study


@pytest.mark.parametrize(
    ("old", "new", "path", "found"),
    [
        (b'"epsilon":1.5', b'"epsilon":-1.5', "privacy.epsilon", "-1.5"),
        (b'"epsilon":1.5', b'"epsilon":"1.5"', "privacy.epsilon", '"1.5"'),
        (b'"epsilon":1.5', b'"epsilon":1.5,"extra":1', "privacy.extra", "an unknown key"),
        (b'"threshold":3', b'"threshold":2', "aggregation.threshold", "2 with 4 hospitals"),
        (b'"expires":"2035-12-31"', b'"expires":"soon"', "governance.expires", '"soon"'),
        (b'"epsilon":1.5', b'"epsilon": 1.5', "", "not canonical"),
        (b'"epsilon":1.5', b'"epsilon":15e-1', "", "not canonical"),
        (b'"epsilon":1.5', b'"epsilon":0.5,"epsilon":1.5', "", "not canonical"),
        (b'"clip_norm_l2":1.0', b'"clip_norm_l2":1', "", "not canonical"),
        (b'"epsilon":1.5', b'"epsilon":NaN', "privacy.epsilon", "nan"),
        (b"{", b"", "", "not JSON"),
        (b"}", b"", "", "not JSON"),
    ],
)
def test_a_document_that_is_not_exactly_canonical_is_refused(
    tmp_path: Path, old: bytes, new: bytes, path: str, found: str
) -> None:
    document = loaded(tmp_path, STUDY).document()
    assert old in document
    with pytest.raises(DocumentInvalid) as caught:
        StudyFile.from_document(document.replace(old, new, 1))
    assert caught.value.problems[0].path == path
    assert found in caught.value.problems[0].found


@pytest.mark.parametrize("document", [b"", b"null", b"[]", b"\xff", b"[" * 100_000, b"{}" + b" " * 2**20, b'"x"'])
def test_hostile_documents_are_refused(document: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        StudyFile.from_document(document)


def test_features_come_out_sorted_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    study = loaded(tmp_path, STUDY.replace("    age:", "    zage:"))
    assert list(study.data.features) == ["cp", "zage"]


# --- the catalogue -------------------------------------------------------------------------------------------------


def test_catalogue_and_study_know_the_same_names() -> None:
    fields = StudyFile.model_fields
    training = fields["training"].annotation.model_fields  # type: ignore[union-attr]
    evaluation = fields["evaluation"].annotation.model_fields  # type: ignore[union-attr]
    assert list(NETWORKS) == list(get_args(NetworkName))
    for name, network in NETWORKS.items():
        assert describe(network.section.model_fields["network"].annotation) == name
    assert ", ".join(METRICS) in describe(evaluation["metrics"].annotation)
    assert describe(training["loss"].annotation) == "one of " + ", ".join(LOSSES)
    assert list(OPTIMIZERS) == [describe(section.model_fields["name"].annotation) for section in (Sgd, Adam)]
    assert describe(MechanismName).startswith("one of " + ", ".join(MECHANISMS))


# --- distributed-dp-sgd ---------------------------------------------------------------------------------------------

DISTRIBUTED = (
    STUDY.replace("local_steps: 2", "local_steps: 1")
    .replace("mechanism: local-dp-sgd", "mechanism: distributed-dp-sgd")
    .replace("update_clip: 4", "update_clip: 100")
)


@pytest.mark.parametrize(
    "case",
    [
        ("local_steps: 1", "local_steps: 2", "training.local_steps", "2", "1 with distributed-dp-sgd"),
        ("weighting: uniform", "weighting: patients", "training.weighting", "patients", "uniform with distributed"),
        ("server_learning_rate: 1", "server_learning_rate: 2", "training.server_learning_rate", "2", "1.0 with"),
        ("update_clip: 100", "update_clip: 100\n  tensor_clips: {0.weight: 1}",
         "aggregation.tensor_clips", "clips by parameter", "one grid"),
        ("  threshold: 3", "  group_size: 64\n  threshold: 3", "aggregation.group_size", "64", "that group alone"),
        ("unit: patient\n", "unit: patient\n  colluding: 2\n", "privacy.colluding", "4 hospitals and colluding 2",
         "more than the hospitals and the colluding ones together"),
    ],
)  # fmt: skip
def test_a_distributed_study_is_one_step_a_round_with_an_honest_share(
    tmp_path: Path, case: tuple[str, str, str, str, str]
) -> None:
    old, new, path, found, allowed = case
    assert loaded(tmp_path, DISTRIBUTED).is_distributed
    problem = next((p for p in problems(tmp_path, DISTRIBUTED.replace(old, new, 1)) if p.path == path), None)
    assert problem is not None
    assert found in problem.found
    assert allowed in problem.allowed


def test_noise_is_calibrated_to_the_threshold_less_the_colluding(tmp_path: Path) -> None:
    study = loaded(tmp_path, DISTRIBUTED)
    assert (study.is_distributed, study.honest_shares) == (True, 3)
    dishonest = loaded(tmp_path, DISTRIBUTED.replace("unit: patient\n", "unit: patient\n  colluding: 1\n"))
    assert dishonest.honest_shares == 2
    assert dishonest.digest() != study.digest()
    assert not loaded(tmp_path, STUDY).is_distributed


def test_an_optimizer_and_an_average_of_the_coordinator_are_part_of_the_document(tmp_path: Path) -> None:
    text = DISTRIBUTED.replace("{name: sgd, learning_rate: 0.5, momentum: 0}", "{name: adam, learning_rate: 0.5}")
    study = loaded(tmp_path, text.replace("  loss:", "  averaging: {decay: 0.9}\n  loss:"))
    assert isinstance(study.training.optimizer, Adam)
    assert (study.training.optimizer.betas, study.training.optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert b'"averaging":{"decay":0.9}' in study.document()
    assert StudyFile.from_document(study.document()) == study
    assert b"averaging" not in loaded(tmp_path, STUDY).document()
    assert b"colluding" not in loaded(tmp_path, STUDY).document()


# --- evaluation ----------------------------------------------------------------------------------------------------


def evaluating(*lines: str, metrics: str = "auc, accuracy") -> str:
    text = STUDY.replace("[auc, accuracy]", f"[{metrics}]")
    return text + "".join(f"  {line}\n" for line in lines)


def test_everything_that_can_be_measured(tmp_path: Path) -> None:
    text = evaluating(
        "specificity: 0.95", "calibration_bins: 5", "per_site: spread", "subgroup_bins: 10", "minimum_cell: 15",
        "subgroups: [{column: age, bands: [50, 65]}, {column: cp, values: [1, 3], names: [typical, other]}]",
        metrics="auc, accuracy, loss, brier, calibration, sensitivity",
    ).replace("  minimum: 3\n", "  minimum: 4\n", 1)  # fmt: skip
    study = loaded(tmp_path, text)
    wanted = study.evaluation
    assert (wanted.curve_bins, wanted.cell_bins, wanted.smallest_cell) == (5, 10, 15)
    assert all_cells(wanted.subgroups) == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))
    age, kind = wanted.subgroups or ()
    assert [age.name_of(cell) for cell in range(3)] == ["below 50", "50 to below 65", "65 and above"]
    assert [kind.name_of(cell) for cell in range(2)] == ["typical", "other"]
    assert StudyFile.from_document(study.document()) == study


def test_what_evaluation_has_where_nothing_is_said(tmp_path: Path) -> None:
    wanted = loaded(tmp_path, STUDY).evaluation
    assert (wanted.curve_bins, wanted.cell_bins, wanted.smallest_cell) == (10, 20, 10)
    assert wanted.subgroups is wanted.per_site is wanted.privacy is None


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        (evaluating(metrics="sensitivity"), "evaluation.specificity", "together with sensitivity"),
        (evaluating("specificity: 0.9"), "evaluation.specificity", "together with sensitivity"),
        (evaluating("subgroups: [{column: age}]"), "evaluation.subgroups[0]", "values of a column, or bands"),
        (
            evaluating("subgroups: [{column: age, values: [1], bands: [2]}]"),
            "evaluation.subgroups[0]",
            "values of a column, or bands",
        ),
        (evaluating("subgroups: [{column: weight, bands: [2]}]"), "evaluation.subgroups[0].column", "of the features"),
        (evaluating("subgroups: [{column: num, bands: [2]}]"), "evaluation.subgroups[0].column", "of the features"),
        (evaluating("subgroups: [{column: cp, bands: [2]}]"), "evaluation.subgroups[0].bands", "only numbers"),
        (
            evaluating("subgroups: [{column: cp, values: [1, 4]}]"),
            "evaluation.subgroups[0].values[1]",
            "one of 1, 2, 3",
        ),
        (evaluating("subgroups: [{column: cp, values: [1, 1]}]"), "evaluation.subgroups[0].values[1]", "once"),
        (evaluating("subgroups: [{column: age, bands: [40, 130]}]"), "evaluation.subgroups[0].bands[1]", "0 to 120"),
        (evaluating("subgroups: [{column: age, values: [old]}]"), "evaluation.subgroups[0].values[0]", "0 to 120"),
        (evaluating("subgroups: [{column: age, bands: [60, 50]}]"), "evaluation.subgroups[0].bands[1]", "greater than"),
        (
            evaluating("subgroups: [{column: age, bands: [60], names: [young]}]"),
            "evaluation.subgroups[0].names",
            "a name for each",
        ),
        (
            evaluating("subgroups:", *[f"  - {{column: age, bands: {list(range(1, 16))}}}" for _ in range(3)]),
            "evaluation.subgroups",
            "at most 32",
        ),
        (evaluating("per_site: spread"), "evaluation.per_site", "sites.minimum of at least 4"),
        (
            evaluating("privacy: {epsilon: 1, delta: 1e-3}").replace("site: 100000", "site: 5000000"),
            "evaluation.privacy",
            "256 steps for each patient",
        ),
        (
            evaluating("privacy: {epsilon: 1, delta: 1e-3}", "calibration_bins: 7"),
            "evaluation.calibration_bins",
            "a divisor of score_bins",
        ),
        (
            evaluating("privacy: {epsilon: 1, delta: 1e-3}", "per_site: spread").replace("minimum: 3", "minimum: 4", 1),
            "evaluation.per_site",
            "nothing, with evaluation.privacy",
        ),
    ],
)
def test_evaluations_that_make_no_sense(tmp_path: Path, text: str, path: str, allowed: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.path == path
    assert allowed in problem.allowed
