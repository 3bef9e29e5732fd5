"""configs/deploy: units, container file, compose file and chart, each read by something that knows its format."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
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
from jsonschema import Draft7Validator
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


EVERYTHING: dict[str, Any] = {
    "port": 443,
    "service": {"type": "ClusterIP"},
    "ingress": {"enabled": True},
    "gateway": {"enabled": True},
    "objects": {"url": "s3://models/cardio", "secret": "consortium-objects"},
    "serviceAccount": "consortium",
}
"""What is off by default, on."""


def values(given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Every value of the chart by its path, with some given as by `helm --values`."""

    def paths(node: Any, prefix: str) -> dict[str, Any]:
        if isinstance(node, dict):
            return {path: leaf for key, below in node.items() for path, leaf in paths(below, f"{prefix}.{key}").items()}
        assert isinstance(node, str | int), f"{prefix} is neither text nor a number nor a switch"
        return {prefix: node}

    found = paths(yaml.safe_load((CHART / "values.yaml").read_text()), ".Values")
    assert paths(given or {}, ".Values").keys() <= found.keys()
    return {**found, **paths(given or {}, ".Values"), ".Release.Name": "demo"}


def manifest(template: Path, given: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """A template with its values put in, None if it is off.

    It must hold nothing but values and lines that leave others out (`if`): no pipes, no functions. Text stands within
    quotes; without them a value must be a number.
    """
    known, lines, left_out = values(given), [], [False]
    for line in template.read_text().splitlines():
        if condition := re.fullmatch(r" *\{\{- if ([A-Za-z.]+) \}\}", line):
            left_out.append(left_out[-1] or not known[condition[1]])
        elif re.fullmatch(r" *\{\{- end \}\}", line):
            left_out.pop()
        elif not left_out[-1]:
            lines.append(line)
    assert left_out == [False]
    text = re.sub(r"\{\{ ([A-Za-z.]+) \}\}", lambda match: str(known[match[1]]), "".join(f"{line}\n" for line in lines))
    assert "{{" not in text
    unquoted = re.findall(r"(?<!\")\{\{ ([A-Za-z.]+) \}\}(?!\")", re.sub(r'"[^"\n]*"', "", template.read_text()))
    assert {type(known[path]) for path in unquoted} <= {int}, unquoted
    found = yaml.safe_load(text)
    assert found is None or isinstance(found, dict)
    return found


def there(name: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """The manifest of a template that is on."""
    found = manifest(CHART / f"templates/{name}.yaml", given)
    assert found is not None
    return found


@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["default", "everything"])
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_manifest_is_what_kubernetes_takes(template: Path, given: dict[str, Any]) -> None:
    found = manifest(template, given)
    if template.stem in ("ingress", "tlsroute") and not given:
        assert found is None
    elif template.stem == "tlsroute":  # of an extension: Kubernetes' own schemas do not have it
        assert found is not None
        assert (found["apiVersion"], found["kind"]) == ("gateway.networking.k8s.io/v1", "TLSRoute")
    else:
        for release in KUBERNETES:
            kubernetes_validate.validate(found, release, strict=True)


def test_every_value_is_used_and_the_chart_is_named() -> None:
    used = set(re.findall(r"\{\{-? (?:if )?(\.[A-Za-z.]+) \}\}", "".join(path.read_text() for path in TEMPLATES)))
    assert used == set(values())
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["apiVersion"], chart["name"], chart["type"]) == ("v2", "consortium", "application")
    assert {path.stem for path in TEMPLATES} >= {"statefulset", "service", "poddisruptionbudget", "networkpolicy"}


def merged(given: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    for key, value in given.items():
        found[key] = {**found[key], **value} if isinstance(value, dict) else value
    return found


def test_the_schema_of_values_takes_these_and_no_others() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    Draft7Validator.check_schema(schema)
    check = Draft7Validator(schema)
    for given in ({}, EVERYTHING):
        check.validate(merged(given))
    for wrong in (
        {"port": "443"},
        {"port": 80},
        {"port": 9464},
        {"host": "hub.example.org:443"},
        {"host": "https://hub.example.org"},
        {"name": 'x"y'},
        {"database": "postgresql://consortium:secret@postgresql.example.org/consortium"},
        {"objects": {"url": "s3://key:secret@models/cardio"}},
        {"objects": {"url": "file:///models"}},
        {"objects": {"key": "secret"}},
        {"ingress": {"enabled": "yes"}},
        {"ingres": {"enabled": True}},
        {"service": {"type": "ExternalName"}},
        {"probes": {"liveness": {"periodSeconds": 0, "timeoutSeconds": 5, "failureThreshold": 6}}},
        {"storage": {"size": 50}},
    ):
        assert not check.is_valid({**merged({}), **wrong} if "ingres" in wrong else merged(wrong)), wrong
    # Nothing that a template puts within quotes may end them.
    loose = [
        path for path, node in _texts(schema) if "enum" not in node and "const" not in node and _takes_quotes(node)
    ]
    assert loose == []


def _texts(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a schema that is about a text."""
    if isinstance(node, dict):
        if node.get("type") == "string":
            yield path, node
        for key, below in node.items():
            yield from _texts(below, f"{path}/{key}")
    elif isinstance(node, list):
        for below in node:
            yield from _texts(below, path)


def _takes_quotes(node: dict[str, Any]) -> bool:
    check = Draft7Validator(node)
    around = ("", "a", "abc.", "s3://a", "postgresql://a@b/c")
    return any(check.is_valid(f"{words}{bad}") for words in around for bad in ('"', "\\", "\na: b"))


def test_what_stands_in_front_passes_tls_on_to_the_port_of_agents() -> None:
    service = there("service", EVERYTHING)
    (agents,) = (port for port in service["spec"]["ports"] if port["name"] == "agents")
    assert (agents["port"], service["spec"]["type"]) == (443, "ClusterIP")

    ingress = there("ingress", EVERYTHING)
    kinds = {name.partition("/")[0]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert set(kinds) == {"nginx.ingress.kubernetes.io", "haproxy.org", "haproxy-ingress.github.io"}
    assert set(kinds.values()) == {"true"}
    assert all(name.endswith("/ssl-passthrough") for name in ingress["metadata"]["annotations"])
    assert "tls" not in ingress["spec"]  # a certificate there would be one to open TLS with
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": "agents"}}

    route = there("tlsroute", EVERYTHING)["spec"]
    assert route["hostnames"] == [rule["host"]] == [values()[".Values.host"]]
    assert route["rules"] == [{"backendRefs": [{"name": service["metadata"]["name"], "port": 443}]}]
    assert route["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "tls-passthrough"}]

    # It is the port that the coordinator listens on, that its pod may open, and that the policy lets through.
    pod = there("statefulset", EVERYTHING)["spec"]["template"]["spec"]
    assert pod["containers"][0]["ports"][0] == {"name": "agents", "containerPort": 443}
    assert {"name": "PORT", "value": "443"} in pod["initContainers"][0]["env"]
    (allowed,) = pod["securityContext"]["sysctls"]
    assert (allowed["name"], int(allowed["value"])) == ("net.ipv4.ip_unprivileged_port_start", 443)
    assert {"port": 443, "protocol": "TCP"} in there("networkpolicy", EVERYTHING)["spec"]["ingress"][0]["ports"]


def test_an_object_stores_key_is_in_a_secret_or_nowhere() -> None:
    (coordinator,) = there("statefulset", EVERYTHING)["spec"]["template"]["spec"]["containers"]
    assert coordinator["envFrom"] == [{"secretRef": {"name": "consortium-objects"}}]
    role = {**EVERYTHING, "objects": {"url": "s3://models/cardio"}}
    pod = there("statefulset", role)["spec"]["template"]["spec"]
    assert "envFrom" not in pod["containers"][0]
    assert pod["serviceAccountName"] == "consortium"


@pytest.mark.parametrize(("given", "port"), [({}, 8443), (EVERYTHING, 443)], ids=["default", "everything"])
def test_the_charts_configuration_is_one_a_coordinator_takes(tmp_path: Path, given: dict[str, Any], port: int) -> None:
    path = tmp_path / "coordinator.yaml"
    path.write_text(there("configmap", given)["data"]["coordinator.yaml"])
    config = load_coordinator_file(path)
    assert config.address == f"hub.example.org:{port}"
    assert config.listening(config.address) == f"0.0.0.0:{port}"
    assert config.own_address == f"127.0.0.1:{port}"
    assert config.objects == given.get("objects", {}).get("url")
    assert config.database.startswith("postgresql://")
    assert config.monitor_address == "0.0.0.0:9464"


def test_no_container_has_a_right_it_does_not_need() -> None:
    pod = there("statefulset")["spec"]["template"]["spec"]
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


@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["default", "everything"])
def test_helm_lints_the_chart_and_renders_the_same(given: dict[str, Any], tmp_path: Path) -> None:
    """By the program, or by helm's own library in a Python package (helm-python-sdk)."""
    if shutil.which("helm") is not None:
        (tmp_path / "values.yaml").write_text(yaml.safe_dump(given))
        also = ("--values", str(tmp_path / "values.yaml"))
        linted = _run("helm", "lint", "--strict", str(CHART), *also)
        assert linted.returncode == 0, linted.stdout
        texts = _run("helm", "template", "demo", str(CHART), *also).stdout.split("\n---\n")
        wrong = _run("helm", "template", "demo", str(CHART), *also, "--set", "port=80")
        assert wrong.returncode != 0
    else:
        helm = pytest.importorskip("helm_python", reason="helm is not installed here")
        assert helm.lint(str(CHART), values=given, strict=True)["errors"] == []
        with helm.Chart.load(str(CHART)) as chart:
            texts = list(chart.render(values=given, name="demo").values())
            with pytest.raises(helm.HelmError, match="port"):
                chart.render(values={**given, "port": 80}, name="demo")
    found = {one["kind"]: one for text in texts for one in yaml.safe_load_all(text) if one}
    assert found == {one["kind"]: one for template in TEMPLATES if (one := manifest(template, given)) is not None}


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
