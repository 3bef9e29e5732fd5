"""configs/deploy: units, container file, compose file and chart, each read by something that knows its format."""

import json
import re
import shutil
import subprocess
import tomllib
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from consortium.bill_of_materials import bill_of_materials, pieces_in
from consortium.coordinator_file import load_coordinator_file

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "configs/deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
LOCKS = sorted(DEPLOY.glob("*.lock"))
CHART = DEPLOY / "helm/consortium"
TEMPLATES = sorted((CHART / "templates").glob("*.yaml"))
KUBERNETES = ("1.27", "1.37")
"""The oldest release the chart asks for, and the newest whose schemas there are."""
DRAIN_S = 30
EXPOSURE_MAX = 2.0  # of 10, as systemd counts it


# --- systemd ---------------------------------------------------------------------------------------------------------


def settings_of(unit: Path) -> dict[str, list[str]]:
    """Every key of a unit with its values; keys may stand there several times."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_told_when_it_is_ready_and_gives_time_to_stop(unit: Path) -> None:
    found = settings_of(unit)
    assert found["Type"] == ["notify"]
    assert int(found["WatchdogSec"][0]) >= 60  # loading the training libraries must not look like a stuck loop
    assert int(found["TimeoutStopSec"][0]) >= DRAIN_S + 15
    assert found["RestartPreventExitStatus"] == ["1 2"]
    for key in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "PrivateUsers", "RestrictNamespaces"):
        assert found[key] == ["yes"], key
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["User"] != ["root"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_a_unit_and_finds_little_exposed(unit: Path, tmp_path: Path) -> None:
    installed = tmp_path / unit.name
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit.read_text())
    installed.write_text(text)
    verified = _run("systemd-analyze", "verify", str(installed))
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = _run("systemd-analyze", "--no-pager", "security", "--offline=true", str(installed))
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", rated.stdout)
    assert level is not None, rated.stdout + rated.stderr
    assert float(level[1]) <= EXPOSURE_MAX


def test_the_process_that_trains_may_confine_itself_and_be_killed_alone() -> None:
    found = settings_of(DEPLOY / "site-agent.service")
    allowed = {call for line in found["SystemCallFilter"] if not line.startswith("~") for call in line.split()}
    assert {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= allowed
    assert found["OOMPolicy"] == ["continue"]  # by default systemd stops the whole unit


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# --- containers ------------------------------------------------------------------------------------------------------


def test_the_container_file_runs_nothing_as_root() -> None:
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    last = max(at for at, (word, *_) in enumerate(lines) if word == "FROM")
    final = [(word, rest[0]) for word, *rest in lines[last:]]
    (user,) = (value for word, value in final if word == "USER")
    assert user == "10001:10001"
    assert final.index(("USER", user)) < [word for word, _ in final].index("CMD")
    assert not any(word == "ADD" for word, *_ in lines)
    assert not any("--from" not in rest[0] for word, *rest in lines[last:] if word == "COPY")  # no sources in it
    sources = [name for word, *rest in lines[:last] if word == "COPY" for name in rest[0].split()[:-1]]
    assert all((ROOT / name).exists() for name in sources)
    allowed = [line[1:] for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert sorted(allowed) == sorted(sources)  # the builder gets what it copies, and nothing beside it
    (installed,) = (rest[0] for word, *rest in lines if word == "RUN" and "pip install" in rest[0])
    assert "--require-hashes -r configs/deploy/${LOCK}" in installed
    (lock,) = (rest[0].partition("=")[2] for word, *rest in lines if word == "ARG" and rest[0].startswith("LOCK="))
    assert (DEPLOY / lock).is_file()


def test_the_compose_file_is_one_and_gives_no_rights_away() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    compose_spec.PyCompose.from_yaml(text)  # raises if it breaks the specification
    services = yaml.safe_load(text)["services"]
    for name, service in services.items():
        assert service["user"] == "10001:10001", name
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["stop_grace_period"] == "60s"
        assert "privileged" not in service
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert "ports" not in services["site-agent"]  # nothing is opened inwards at a hospital
    assert services["site-agent"]["volumes"][1]["read_only"] is True


# --- the chart -------------------------------------------------------------------------------------------------------


def values() -> dict[str, str]:
    """Every value of the chart by its path."""

    def paths(node: Any, prefix: str) -> dict[str, str]:
        if isinstance(node, dict):
            return {path: text for key, below in node.items() for path, text in paths(below, f"{prefix}.{key}").items()}
        assert isinstance(node, str), f"{prefix} is no text"
        return {prefix: node}

    found = paths(yaml.safe_load((CHART / "values.yaml").read_text()), ".Values")
    return {**found, ".Release.Name": "demo"}


def manifest(template: Path) -> dict[str, Any]:
    """A template with its values put in. It must hold nothing but values, each within quotes: no logic, no pipes."""
    known = values()
    text = re.sub(r"\{\{ ([A-Za-z.]+) \}\}", lambda match: known[match[1]], template.read_text())
    assert "{{" not in text
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_manifest_is_what_kubernetes_takes(template: Path) -> None:
    found = manifest(template)
    for release in KUBERNETES:
        kubernetes_validate.validate(found, release, strict=True)
    raw = template.read_text()
    assert isinstance(yaml.safe_load(raw), dict)  # without its values, too: each stands in quotes


def test_every_value_is_used_and_the_chart_is_named() -> None:
    used = set(re.findall(r"\{\{ ([A-Za-z.]+) \}\}", "".join(path.read_text() for path in TEMPLATES)))
    assert used == set(values())
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["apiVersion"], chart["name"], chart["type"]) == ("v2", "consortium", "application")
    assert {path.stem for path in TEMPLATES} >= {"statefulset", "service", "poddisruptionbudget", "networkpolicy"}


def test_the_charts_configuration_is_one_a_coordinator_takes(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.yaml"
    path.write_text(manifest(CHART / "templates/configmap.yaml")["data"]["coordinator.yaml"])
    config = load_coordinator_file(path)
    assert config.listening(config.address) == "0.0.0.0:8443"
    assert config.own_address == "127.0.0.1:8443"
    assert config.database.startswith("postgresql://")
    assert config.monitor_address == "0.0.0.0:9464"


def test_no_container_has_a_right_it_does_not_need() -> None:
    pod = manifest(CHART / "templates/statefulset.yaml")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"  # or keys become readable by a group
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] >= DRAIN_S + 15
    mounts = {volume["name"] for volume in pod["volumes"]} | {"home"}
    for container in (*pod["initContainers"], *pod["containers"]):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= mounts
    (coordinator,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in coordinator["ports"]}
    assert ports == {"agents": 8443, "monitor": 9464}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert coordinator[probe]["httpGet"] == {"path": path, "port": "monitor"}


def test_helm_lints_the_chart_and_renders_the_same() -> None:
    """By the program, or by helm's own library in a Python package (`pip install helm-python-sdk`)."""
    if shutil.which("helm") is not None:
        linted = _run("helm", "lint", "--strict", str(CHART))
        assert linted.returncode == 0, linted.stdout
        texts = _run("helm", "template", "demo", str(CHART)).stdout.split("\n---\n")
    else:
        helm = pytest.importorskip("helm_python", reason="helm is not installed here")
        assert helm.lint(str(CHART), strict=True)["errors"] == []
        with helm.Chart.load(str(CHART)) as chart:
            texts = list(chart.render(name="demo").values())
    found = {one["kind"]: one for text in texts for one in yaml.safe_load_all(text) if one}
    assert found == {one["kind"]: one for one in map(manifest, TEMPLATES)}


# --- what is installed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_the_versions_of_the_constraints_each_with_a_hash(lock: Path) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    pieces = pieces_in(lock.read_text())
    assert {piece.name: piece.version for piece in pieces}.items() <= versions.items()
    assert [piece.name for piece in pieces if not piece.sha256] == []
    assert len({piece.name for piece in pieces}) == len(pieces)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_all_that_is_needed(lock: Path) -> None:
    """As the packages that are installed here say; a name that is missing means that `make lock` was forgotten."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"hospital-consortium\[([a-z,]+)\]", lock.read_text())
    assert extras is not None
    asked = [line for one in extras[1].split(",") for line in project["optional-dependencies"][one]]
    names = {piece.name for piece in pieces_in(lock.read_text())}
    needed = {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *asked]}
    for name in names:
        requirements = [Requirement(line) for line in metadata.requires(name) or ()]
        needed |= {
            canonicalize_name(one.name)
            for one in requirements
            if one.marker is None or one.marker.evaluate({"extra": ""})
        }
    assert needed <= names


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_the_bill_of_materials_of_a_lock_is_cyclonedx(lock: Path) -> None:
    pieces = pieces_in(lock.read_text())
    bill = bill_of_materials(pieces, now=datetime(2026, 11, 23, tzinfo=UTC))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    components = json.loads(bill)["components"]
    assert {one["name"] for one in components} == {piece.name for piece in pieces}
    assert [one["name"] for one in components if not one.get("licenses") or not one["hashes"]] == []
    assert bill == bill_of_materials(pieces, now=datetime(2026, 11, 23, tzinfo=UTC))
