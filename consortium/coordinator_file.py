"""coordinator.yaml: what the coordinator is called, where it listens, and where it keeps things.

`consortium init` writes it with `render`; `consortium serve` reads it. Every option with its default and unit is in
`configs/coordinator.example.yaml`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Le
from pydantic import AfterValidator, Field

from consortium.contract import yaml_file
from consortium.contract.fields import Address, RelativePath, SiteName, Version
from consortium.contract.mlflow_run import Tracking
from consortium.contract.schema import Finding, Refused, Rule, Section, Words

_SQLITE = re.compile(r"sqlite:///[^?#]+")
_POSTGRESQL = re.compile(r"postgresql(?:\+[a-z0-9]+)?://(?:[^:@/]+@)?[^:@/]+(?::[0-9]+)?/[^/?#]+(?:\?[^#]*)?")
_ORIGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9])?")


def _database(url: str) -> str:
    # A password never stands in a configuration file: PostgreSQL takes it from its own password file.
    password = "password=" in url
    if password or (_SQLITE.fullmatch(url) is None and _POSTGRESQL.fullmatch(url) is None):
        raise Refused("an address with a password in it" if password or "@" in url else None)
    return url


def _origin(name: str) -> str:
    if _ORIGIN.fullmatch(name) is None:
        raise Refused
    return name


def _ports_differ(address: str, enrolment_address: str) -> Iterator[Finding]:
    if address == enrolment_address:
        yield Finding("enrolment_address", f'"{enrolment_address}"', "another port than that of address")


class CoordinatorFile(Section):
    """The coordinator's configuration."""

    schema_version: Annotated[Literal["consortium/coordinator/v1"], Field(alias="schema")]
    name: Annotated[SiteName, Words("a name: 3 to 40 characters of a-z, 0-9 and '-', starting with a letter")]
    address: Address  # agents and the command line; both sides show a certificate
    enrolment_address: Address  # hospitals without a certificate yet; only their one-time token speaks for them
    log_origin: Annotated[
        str,
        AfterValidator(_origin),
        Words("a name such as hub.example.org/cardio, at most 200 letters, digits, . _ / -"),
    ]  # the log's name in every checkpoint; it must never change
    database: Annotated[
        str,
        AfterValidator(_database),
        Words("sqlite:///FILE below the home, or postgresql://USER@HOST/NAME with the password in a password file"),
    ] = "sqlite:///consortium.db"
    log_dir: RelativePath = "log"
    minimum_agent_version: Version = "0.1.0"
    token_lifetime_hours: Annotated[float, Gt(0), Le(24 * 365)] = 72.0
    certificate_days: Annotated[int, Gt(0), Le(3650)] = 365
    tensorboard: bool = False  # curves of the masked sums, for TensorBoard
    mlflow: Tracking | None = None  # the same for an MLflow tracking server

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("address", "enrolment_address"), check=_ports_differ),)

    def database_url(self, home: Path) -> str:
        """The database, with a relative SQLite file taken to lie in the coordinator's home."""
        scheme = "sqlite:///"
        if not self.database.startswith(scheme):
            return self.database
        return f"{scheme}{home.resolve() / self.database.removeprefix(scheme)}"

    def log_folder(self, home: Path) -> Path:
        """Where the audit log's tiles lie."""
        return home / self.log_dir


def load_coordinator_file(path: Path) -> CoordinatorFile:
    """The coordinator.yaml at `path`; raises FileInvalid with every problem in it."""
    return yaml_file.load(path, CoordinatorFile)


def render(*, name: str, address: str) -> str:
    """A coordinator.yaml for a new home, every option written out. Enrolment gets the port next to `address`.

    Values are not checked here: `init` reads the file back, and a wrong one is reported with its line.
    """
    host, _, port = address.rpartition(":")
    number = int(port) if port.isdecimal() and len(port) <= 5 else 0
    enrolment = f"{host}:{number - 1 if number >= 65535 else number + 1}"
    origin = "/".join((re.sub(r"[^A-Za-z0-9.]+", "-", host).strip("-."), name)).strip("/")
    return f"""\
# The coordinator of one consortium. Paths are relative to the folder this file lies in.
schema: consortium/coordinator/v1
name: {yaml_file.quoted(name)}

# host:port for agents and commands; mutual TLS. The host is in the coordinator's certificate.
address: {yaml_file.quoted(address)}
# host:port for `site-agent enrol`; the coordinator shows its certificate, the hospital its one-time token.
enrolment_address: {yaml_file.quoted(enrolment)}

# The log's name in every checkpoint. It must never change, not even when the address does.
log_origin: {yaml_file.quoted(origin)}

# sqlite:///FILE, or postgresql://USER@HOST/NAME with the password in PostgreSQL's own password file.
database: sqlite:///consortium.db
# The folder of the audit log.
log_dir: log

# Older agents are turned away.
minimum_agent_version: "0.1.0"
# Hours a hospital has to use its enrolment kit.
token_lifetime_hours: 72
# Days a hospital's certificate is valid.
certificate_days: 365

# Whether the figures of every measured round, summed over hospitals, are also written for TensorBoard, to the folder
# tensorboard/STUDY of the home.
tensorboard: false
# The same figures for an MLflow tracking server: server (https://host:port, or http://127.0.0.1:port) and experiment.
mlflow: null
"""
