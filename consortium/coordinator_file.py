"""coordinator.yaml: what the coordinator is called, where it listens, and where it keeps things.

`consortium init` writes it with `render`; `consortium serve` reads it. Every option with its default and unit is in
`configs/coordinator.example.yaml`.
"""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator, Field

from audit.cosignature import WitnessKey
from audit.errors import VerificationError
from consortium.contract import yaml_file
from consortium.contract.fields import Address, Line, RelativePath, SiteName, Version
from consortium.contract.mlflow_run import LOOPBACK, Tracking
from consortium.contract.schema import Finding, Refused, Rule, Section, Words
from consortium.objects import is_objects_url

_SQLITE = re.compile(r"sqlite:///[^?#]+")
_POSTGRESQL = re.compile(r"postgresql(?:\+[a-z0-9]+)?://(?:[^:@/]+@)?[^:@/]+(?::[0-9]+)?/[^/?#]+(?:\?[^#]*)?")
_ORIGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9])?")
_WEBHOOK_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::[1-9][0-9]{0,4})?"
    r"(?:/[A-Za-z0-9._~%/-]{0,500})?(?:\?[A-Za-z0-9._~%&=-]{1,500})?"
)
EventName: TypeAlias = Literal[
    "study.needs_approval",
    "round.done",
    "study.stopped",
    "study.completed",
    "model.released",
    "site.silent",
    "log.alarm",
]
"""What a webhook can be told of."""
FORMER_OPTIONS = {
    "enrolment_address": "Hospitals and people enrol at `address` now. Take the line out of coordinator.yaml and close "
    "its port in the firewall; kits that were made before and not used are made anew."
}
"""Options that earlier releases had and that say nothing any more, each with what to do about it."""
ClaimValue: TypeAlias = Annotated[Line, Len(1, 200)]
_WITNESS_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::[1-9][0-9]{0,4})?"
    r"(?:/[A-Za-z0-9._~-]{1,64}){0,8}/?"
)


def _database(url: str) -> str:
    # A password never stands in a configuration file: PostgreSQL takes it from its own password file.
    password = "password=" in url
    if password or (_SQLITE.fullmatch(url) is None and _POSTGRESQL.fullmatch(url) is None):
        raise Refused("an address with a password in it" if password or "@" in url else None)
    return url


def _log_entries(url: str) -> str:
    if not url.startswith(("postgresql://", "postgresql+psycopg://")):
        raise Refused
    return _database(url)


def _objects(url: str) -> str:
    if not is_objects_url(url):
        raise Refused("an address with a password or an option in it" if {"@", "?"} & set(url) else None)
    return url


def _origin(name: str) -> str:
    if _ORIGIN.fullmatch(name) is None:
        raise Refused
    return name


def _witness_url(url: str) -> str:
    match = _WITNESS_URL.fullmatch(url)
    if match is None:
        raise Refused("an address with a password in it" if "@" in url else None)
    if match["scheme"] == "http" and match["host"] not in LOOPBACK:
        raise Refused("http:// to another machine")
    return url


def _witness_key(vkey: str) -> str:
    try:
        WitnessKey.from_vkey(vkey)
    except VerificationError as error:
        raise Refused(str(error)[:200]) from error
    return vkey


def _listen(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise Refused from None
    return host


def _ports_differ(address: str, log_address: str | None, monitor_address: str | None) -> Iterator[Finding]:
    if log_address == address:
        yield Finding("log_address", f'"{log_address}"', "another port than that of address")
    if monitor_address is not None and monitor_address in (address, log_address):
        yield Finding("monitor_address", f'"{monitor_address}"', "a port that nothing else here has")


def _people_have_a_provider(address: str, people_address: str | None, oidc: "Oidc | None") -> Iterator[Finding]:
    if (people_address is None) != (oidc is None):
        yield Finding("people_address", "one without the other", "people_address and oidc, or neither")
    elif people_address is not None and people_address.rpartition(":")[0] != address.rpartition(":")[0]:
        yield Finding("people_address", f'"{people_address}"', "the host of address, which is in the certificate")


def _witnesses_differ(outside_witnesses: tuple["OutsideWitness", ...]) -> Iterator[Finding]:
    keys = [one.key for one in outside_witnesses]
    for at, key in enumerate(keys):
        if any(key.name == other.name or key.public_key == other.public_key for other in keys[:at]):
            yield Finding(f"outside_witnesses[{at}].vkey", f'"{key.name}"', "a witness that does not stand here twice")


class OutsideWitness(Section):
    """A witness of the log that is no hospital of the consortium; see `consortium/outside_witness.py`."""

    url: Annotated[
        str,
        AfterValidator(_witness_url),
        Words("https://host:port/prefix, or http://127.0.0.1:port/prefix on this machine; no password"),
    ]
    vkey: Annotated[
        str,
        AfterValidator(_witness_key),
        Words("the witness's vkey, NAME+ID+KEY with an Ed25519 key for cosignatures (type 0x04)"),
    ]

    @property
    def key(self) -> WitnessKey:
        """The key that its cosignatures verify with."""
        return WitnessKey.from_vkey(self.vkey)


def _webhook_url(url: str) -> str:
    match = _WEBHOOK_URL.fullmatch(url)
    if match is None:
        raise Refused("an address with a password in it" if "@" in url else None)
    if match["scheme"] == "http" and match["host"] not in LOOPBACK:
        raise Refused("http:// to another machine")
    return url


class Webhook(Section):
    """Somebody who is told of events; see `consortium/webhooks.py`."""

    url: Annotated[
        str,
        AfterValidator(_webhook_url),
        Words("https://host:port/path, or http://127.0.0.1:port/path on this machine; no password"),
    ]
    secret_file: RelativePath | None = None  # `whsec_` and base64 of 24 to 64 bytes; without it nothing is signed
    events: Annotated[tuple[EventName, ...], Len(1, 16)] = get_args(EventName)


def _https_url(url: str) -> str:
    match = _WEBHOOK_URL.fullmatch(url)
    if match is None or match["scheme"] != "https":
        raise Refused("an address with a password in it" if "@" in url else None)
    return url


def _one_set_of_keys(jwks_file: str | None, jwks_url: str | None) -> Iterator[Finding]:
    if (jwks_file is None) == (jwks_url is None):
        yield Finding("jwks_file", "both" if jwks_file else "neither it nor jwks_url", "one of jwks_file and jwks_url")


def _values_differ(
    leads: tuple[str, ...], scientists: tuple[str, ...], auditors: tuple[str, ...], operators: tuple[str, ...]
) -> Iterator[Finding]:
    given = [*leads, *scientists, *auditors, *operators]
    if not given or len(set(given)) != len(given):
        yield Finding("leads", "no value, or one for two roles", "at least one value of the claim, each for one role")


class Oidc(Section):
    """An OpenID Connect provider whose bearer tokens are taken at `people_address`; see `consortium/tokens.py`."""

    issuer: Annotated[str, AfterValidator(_https_url), Words("https://host, as `iss` of its tokens has it")]
    audience: Annotated[Line, Len(1, 200)]
    jwks_file: RelativePath | None = None
    jwks_url: Annotated[str, AfterValidator(_https_url), Words("https://host:port/path")] | None = None
    role_claim: Annotated[Line, Len(1, 200)] = "roles"  # text, or a list of texts
    leads: Annotated[tuple[ClaimValue, ...], Len(0, 20)] = ()  # values of the claim that make somebody a lead
    scientists: Annotated[tuple[ClaimValue, ...], Len(0, 20)] = ()
    auditors: Annotated[tuple[ClaimValue, ...], Len(0, 20)] = ()
    operators: Annotated[tuple[ClaimValue, ...], Len(0, 20)] = ()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("jwks_file", "jwks_url"), check=_one_set_of_keys),
        Rule(reads=("leads", "scientists", "auditors", "operators"), check=_values_differ),
    )


class CoordinatorFile(Section):
    """The coordinator's configuration."""

    schema_version: Annotated[Literal["consortium/coordinator/v1"], Field(alias="schema")]
    name: Annotated[SiteName, Words("a name: 3 to 40 characters of a-z, 0-9 and '-', starting with a letter")]
    address: Address  # agents and the command line, to enrol and ever after; both sides show a certificate
    listen: (
        Annotated[str, AfterValidator(_listen), Words("an IP address of this computer; 0.0.0.0 or :: for all of them")]
        | None
    ) = None  # where ports are opened, if that is not the host that hospitals dial: in a container, behind NAT
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
    log_entries: (
        Annotated[
            str,
            AfterValidator(_log_entries),
            Words("postgresql://USER@HOST/NAME with the password in a password file"),
        ]
        | None
    ) = None  # SQLite in log_dir by default; it must never change
    objects: (
        Annotated[
            str,
            AfterValidator(_objects),
            Words("file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or abfs://CONTAINER/PREFIX; no password"),
        ]
        | None
    ) = None  # models, sums and evidence, beside the home; only in the home by default
    log_address: Address | None = None  # the log over HTTPS, read-only; none by default
    log_readers: Literal["members", "anybody"] = "members"  # those with a certificate of this consortium, or all
    outside_witnesses: Annotated[tuple[OutsideWitness, ...], Len(0, 16)] = ()
    minimum_agent_version: Version = "0.1.0"
    token_lifetime_hours: Annotated[float, Gt(0), Le(24 * 365)] = 72.0
    certificate_days: Annotated[int, Gt(0), Le(3650)] = 90  # of a hospital; its agent renews it
    account_certificate_days: Annotated[int, Gt(0), Le(3650)] = 30  # of a person's account; it renews itself
    people_address: Address | None = None  # for people with a token of `oidc`; none by default
    oidc: Oidc | None = None
    heartbeat_minutes: Annotated[int, Ge(0), Le(1440)] = 60  # between two signs of life in the log; 0 for none
    monitor_address: Address | None = None  # /metrics, /healthz and /readyz over plain HTTP; none by default
    webhooks: Annotated[tuple[Webhook, ...], Len(0, 16)] = ()
    silent_minutes: Annotated[int, Ge(1), Le(10080)] = 15  # without its agent, before `site.silent` is told
    tensorboard: bool = False  # curves of the masked sums, for TensorBoard
    mlflow: Tracking | None = None  # the same for an MLflow tracking server

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("address", "log_address", "monitor_address"), check=_ports_differ),
        Rule(reads=("address", "people_address", "oidc"), check=_people_have_a_provider),
        Rule(reads=("outside_witnesses",), check=_witnesses_differ),
    )

    def listening(self, address: str) -> str:
        """Where the port of `address` is opened on this computer."""
        if self.listen is None:
            return address
        port = address.rpartition(":")[2]
        return f"[{self.listen}]:{port}" if ":" in self.listen else f"{self.listen}:{port}"

    @property
    def own_address(self) -> str:
        """Where commands on this computer dial the coordinator: the way around through the network may be closed."""
        return self.listening(self.address).replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")

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
    return yaml_file.load(path, CoordinatorFile, former=FORMER_OPTIONS)


def former_options(path: Path) -> dict[str, str]:
    """Those of FORMER_OPTIONS that still stand in a file that was loaded, each with what to do about it."""
    there = yaml_file.keys_of(path)
    return {name: advice for name, advice in FORMER_OPTIONS.items() if name in there}


def render(*, name: str, address: str, log_entries: str | None = None, log_origin: str | None = None) -> str:
    """A coordinator.yaml for a new home, every option written out.

    The log is called after host and name, unless `log_origin` is given.
    Values are not checked here: `init` reads the file back, and a wrong one is reported with its line.
    """
    host = address.rpartition(":")[0]
    origin = log_origin or "/".join((re.sub(r"[^A-Za-z0-9.]+", "-", host).strip("-."), name)).strip("/")
    return f"""\
# The coordinator of one consortium. Paths are relative to the folder this file lies in.
schema: consortium/coordinator/v1
name: {yaml_file.quoted(name)}

# host:port for agents and commands, to enrol and ever after; mutual TLS. The host is in the coordinator's certificate.
address: {yaml_file.quoted(address)}
# Where ports are opened, if not under the host above: an IP address of this computer, "0.0.0.0" for all of them.
# For a coordinator in a container or behind NAT, whose own address is not the one that hospitals dial.
listen: null

# The log's name in every checkpoint. It must never change, not even when the address does.
log_origin: {yaml_file.quoted(origin)}

# sqlite:///FILE, or postgresql://USER@HOST/NAME with the password in PostgreSQL's own password file.
database: sqlite:///consortium.db
# The folder of the audit log.
log_dir: log
# null for the log's entries in that folder too, or postgresql://USER@HOST/NAME. It must never change.
log_entries: {yaml_file.quoted(log_entries) if log_entries else "null"}
# null, or where models, sums and evidence lie besides, for a standby on another machine: file:///FOLDER (a shared one),
# s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, abfs://CONTAINER/PREFIX. Credentials are the environment's or the machine's.
objects: null
# host:port at which the log can be read over HTTPS, by members (whoever has a certificate of this consortium) or by
# anybody. The log names studies and hospitals: open it to anybody only if all of them agree.
log_address: null
log_readers: members
# Witnesses outside the consortium that are asked to cosign the log: url (https://host:port/prefix) and vkey of each.
outside_witnesses: []

# Older agents are turned away.
minimum_agent_version: "0.1.0"
# Hours a hospital has to use its enrolment kit.
token_lifetime_hours: 72
# Days a hospital's certificate is valid; its agent renews it when two thirds of them are over.
certificate_days: 90
# Days the certificate of a person's account is valid; the command line renews it when a third of that is left.
account_certificate_days: 30
# host:port for people who show a token of their identity provider in place of an account's certificate; null for none.
people_address: null
# That provider: issuer, audience, jwks_file (below this folder) or jwks_url, role_claim, and which values of the claim
# make somebody one of the leads, scientists, auditors, operators.
oidc: null
# Minutes between two entries by which the log shows that the coordinator serves; 0 for none.
heartbeat_minutes: 60

# host:port for monitoring over plain HTTP: /metrics for Prometheus, /healthz, /readyz; null for none. It has no
# password: choose 127.0.0.1, or a network that only your own people reach.
monitor_address: null
# Who is told of events as CloudEvents over HTTPS: url, secret_file (below this folder; signs what is sent) and events.
webhooks: []
# Minutes without an agent after which its hospital counts as silent, for webhooks.
silent_minutes: 15

# Whether the figures of every measured round, summed over hospitals, are also written for TensorBoard, to the folder
# tensorboard/STUDY of the home.
tensorboard: false
# The same figures for an MLflow tracking server: server (https://host:port, or http://127.0.0.1:port) and experiment.
mlflow: null
"""
