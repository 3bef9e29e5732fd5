"""site.yaml: the hospital's own file."""

from pathlib import Path

import pytest

from consortium.contract.errors import FileInvalid
from consortium.contract.names import StudyId
from site_agent.site_file import Policy, SiteFile, load_site_file

DIGEST = "5d" * 32
SITE = """\
schema: consortium/site/v1
site: north
coordinator: {address: "hub.example.org:8443"}
datasets:
  heart: {path: data/heart.csv, format: csv, patient_id: mrn, declared_patients: 200}
  lungs: {path: /srv/lungs.csv, format: csv, patient_id: mrn, declared_patients: 90, split_column: side}
studies:
  heart-disease: heart
policy:
  max_epsilon_per_study: 2
  max_epsilon_total: 4
"""


def loaded(tmp_path: Path, text: str = SITE) -> SiteFile:
    file = tmp_path / "site.yaml"
    file.write_text(text)
    return load_site_file(file)


def test_a_good_file(tmp_path: Path) -> None:
    site = loaded(tmp_path)
    assert site.site_id == "north"
    assert site.proxy is None
    heart = site.dataset_for(StudyId("heart-disease"))
    assert heart is not None
    assert (heart.path, heart.patient_id, heart.declared_patients) == (str(tmp_path / "data/heart.csv"), "mrn", 200)
    assert heart.split_column is None
    assert site.datasets["lungs"].path == "/srv/lungs.csv"
    assert site.dataset_for(StudyId("other-study")) is None


def test_what_the_hospital_does_not_say_is_the_careful_default(tmp_path: Path) -> None:
    policy = loaded(tmp_path).policy
    assert policy == Policy(max_epsilon_per_study=2.0, max_epsilon_total=4.0)
    assert policy.require_approval
    assert not policy.share_exact_metrics
    assert loaded(tmp_path, SITE[: SITE.index("policy:")]).policy == Policy()


@pytest.mark.parametrize(
    "case",
    [
        ("site: north", "site: North", "site", 2, '"North"', "a site name"),
        ("hub.example.org:8443", "https://hub.example.org", "coordinator.address", 3, "https://hub", "host:port"),
        ("hub.example.org:8443", "hub.example.org:0", "coordinator.address", 3, ":0", "host:port"),
        ("studies:", "proxy: proxy:3128\nstudies:", "proxy", 7, '"proxy:3128"', "http://host:port"),
        ("studies:", "proxy: http://me:pw@proxy:3128\nstudies:", "proxy", 7, "an address with a password", "without"),
        ("data/heart.csv", "' '", "datasets.heart.path", 5, '" "', "a path, absolute or relative"),
        ("format: csv", "format: xlsx", "datasets.heart.format", 5, '"xlsx"', "one of csv, parquet, medmnist"),
        ("declared_patients: 200", "declared_patients: 0", "datasets.heart.declared_patients", 5, "0", "from 1 to"),
        (", declared_patients: 200", "", "datasets.heart.declared_patients", 5, "nothing", "a whole number"),
        ("patient_id: mrn, declared", "declared", "datasets.heart.patient_id", 5, "nothing", "a column name"),
        ("disease: heart", "disease: hearts", "studies.heart-disease", 8, '"hearts"', "heart, lungs"),
        ("  heart-disease: heart", "  Heart: heart", "studies.Heart", 8, '"Heart"', "a study name"),
        ("study: 2", "study: 5", "policy.max_epsilon_per_study", 10, "5", "at most max_epsilon_total, 4"),
        ("total: 4", "total: 0", "policy.max_epsilon_total", 11, "0", "greater than 0"),
        ("total: 4", "total: 4\n  minimum_sites: 2", "policy.minimum_sites", 12, "2", "from 3 to 128"),
        ("total: 4", "total: 4\n  max_delta: 1", "policy.max_delta", 12, "1", "less than 1"),
        ("total: 4", "total: 4\n  require_approval: no", "policy.require_approval", 12, '"no"', "true: nothing"),
        ("total: 4", "total: 4\n  require_approval: false", "policy.require_approval", 12, "false", "true: nothing"),
        ("total: 4", "total: 4\n  approvals_needed: 4", "policy.approvals_needed", 12, "4", "from 1 to 3"),
        (
            "total: 4", "total: 4\n  allowed_hours: {time_zone: Mars, from: '18:00', until: '06:00'}",
            "policy.allowed_hours.time_zone", 12, '"Mars"', "a time zone such as Europe/Berlin",
        ),
        (
            "total: 4", "total: 4\n  allowed_hours: {time_zone: UTC, from: '18:00', until: '18:00'}",
            "policy.allowed_hours.until", 12, '"18:00"', "another time than `from`",
        ),
        (
            "total: 4", "total: 4\n  allowed_hours: {time_zone: UTC, from: '6 pm', until: '18:00'}",
            "policy.allowed_hours.from", 12, '"6 pm"', 'a time of day in quotes, such as "18:00"',
        ),
        ("studies:", f"client_algos: {{ward: {{sha256: {DIGEST}, class: A}}}}\nstudies:",
            "client_algos.ward.file", 7, "both or neither", "either file or distribution"),
        ("studies:", f"client_algos: {{ward: {{sha256: {DIGEST}, class: A, distribution: w, module: w}}}}\nstudies:",
            "client_algos.ward.version", 7, "nothing", "a value with distribution"),
        ("total: 4", "total: 4\n  may_approve: [Ada]", "policy.may_approve[0]", 12, '"Ada"', "stewards list"),
        ("total: 4", "total: 4\n  allowed_networks: [x]", "policy.allowed_networks[0]", 12, '"x"', "logistic"),
        ("total: 4", "total: 4\n  allowed_mechanisms: [none]", "policy.allowed_mechanisms[0]", 12, '"none"', "one of"),
        ("studies:", "device: gpu\nstudies:", "device", 7, '"gpu"', "auto, cpu, cuda, or cuda:N"),
        ("studies:", "device: cuda:01\nstudies:", "device", 7, '"cuda:01"', "auto, cpu, cuda, or cuda:N"),
        ("studies:", "precision: float16\nstudies:", "precision", 7, '"float16"', "one of float32, bfloat16"),
        ("studies:", "precision: bfloat16\nengine: ghost\nstudies:", "engine", 8, '"ghost"', "auto or loop with"),
        ("total: 4", "total: 4\n  allowed_suites: [p-256]", "policy.allowed_suites[0]", 12, '"p-256"', "hybrid-pq, p"),
        ("total: 4", "total: 4\n  max_epsilon: 4", "policy.max_epsilon", 12, "an unknown key", "did you mean that?"),
    ],
)  # fmt: skip
def test_wrong_options(tmp_path: Path, case: tuple[str, str, str, int, str, str]) -> None:
    old, new, path, line, found, allowed = case
    assert old in SITE
    with pytest.raises(FileInvalid) as caught:
        loaded(tmp_path, SITE.replace(old, new, 1))
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == (path, line)
    assert found in problem.found
    assert allowed in problem.allowed
    assert "pw" not in str(caught.value)
