"""site.yaml: the hospital's own file. Where the coordinator is, what data there is, and what this hospital allows.

No study and no coordinator can change or override anything in it. Every option with its default and unit is in
`configs/site.example.yaml`.
"""

import re
import sysconfig
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator, Field

from audit.entry_types.steward_entries import SIGNATURES_MAX
from consortium.contract import yaml_file
from consortium.contract.catalogue import MechanismName, SuiteChoice
from consortium.contract.errors import shown
from consortium.contract.fields import Address, ClientAlgoName, FilePath, SiteName, StudyName
from consortium.contract.mlflow_run import Tracking
from consortium.contract.names import SiteId, StudyId, is_digest
from consortium.contract.networks import BundleDigest, NetworkName
from consortium.contract.schema import Finding, Refused, Rule, Section, Words
from consortium.contract.starting_point import FileDigest
from site_agent.datasets import Dataset

_PROXY = re.compile(r"http://(?P<address>[^/@]+)/?")


def _proxy(url: str) -> str:
    match = _PROXY.fullmatch(url)
    if match is None or re.fullmatch(r"[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}", match["address"]) is None:
        raise Refused("an address with a password in it" if "@" in url else None)
    return url


class Coordinator(Section):
    """The one host outside that this agent talks to. It must still hold a certificate of the kit's authority."""

    address: Address


def _study_within_total(per_study: float, total: float) -> Iterator[Finding]:
    if per_study > total:
        yield Finding(
            "max_epsilon_per_study", shown(per_study), f"a number of at most max_epsilon_total, {shown(total)}"
        )


OWN_NETWORKS: tuple[NetworkName, ...] = tuple(name for name in get_args(NetworkName) if not name.startswith("bundle-"))
"""Networks whose code comes with this software. A bundle's is put together by whoever wrote the bundle."""


def _always(wanted: bool) -> bool:  # noqa: FBT001 - a validator
    if not wanted:
        raise Refused
    return wanted


def _steward_key(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise Refused
    return text


StewardKey: TypeAlias = Annotated[
    str,
    AfterValidator(_steward_key),
    Words("a steward's key as `site-agent stewards list` shows it: 64 characters of 0-9 and a-f"),
]


def _owner_fingerprint(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise Refused
    return text


OwnerFingerprint: TypeAlias = Annotated[
    str,
    AfterValidator(_owner_fingerprint),
    Words("the fingerprint of an owner's key as `studies show` prints it: 64 characters of 0-9 and a-f"),
]


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Refused from error
    return name


def _clock(text: str) -> str:
    if re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text) is None:
        raise Refused
    return text


DayName: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_Clock: TypeAlias = Annotated[str, AfterValidator(_clock), Words('a time of day in quotes, such as "18:00"')]


def _hours_differ(opens: str, closes: str) -> Iterator[Finding]:
    if opens == closes:
        yield Finding("until", shown(closes), "another time than `from`; leave allowed_hours out for the whole day")


class AllowedHours(Section):
    """When this hospital trains, by the clock on its wall. `until` before `from` is the next morning."""

    time_zone: Annotated[str, AfterValidator(_time_zone), Words("a time zone such as Europe/Berlin, or UTC")]
    days: Annotated[tuple[DayName, ...], Len(1, 7)] = get_args(DayName)  # on which the hours begin
    opens: Annotated[_Clock, Field(alias="from")]
    closes: Annotated[_Clock, Field(alias="until")]

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("opens", "closes"), check=_hours_differ),)

    def include(self, moment: datetime) -> bool:
        """Whether a moment, of any time zone, is within them."""
        here = moment.astimezone(ZoneInfo(self.time_zone))
        clock, days = here.strftime("%H:%M"), get_args(DayName)
        if self.opens < self.closes:
            return days[here.weekday()] in self.days and self.opens <= clock < self.closes
        if clock >= self.opens:
            return days[here.weekday()] in self.days
        return clock < self.closes and days[here.weekday() - 1] in self.days  # what began the evening before


class Policy(Section):
    """What this hospital allows, whatever a study asks for."""

    require_approval: Annotated[bool, AfterValidator(_always), Words("true: nothing ever runs here unapproved")] = True
    may_approve: Annotated[tuple[StewardKey, ...], Len(0, 50)] = ()  # keys; none: every steward registered here
    approvals_needed: Annotated[int, Ge(1), Le(SIGNATURES_MAX)] = 1  # stewards that sign one study, each with a key
    max_epsilon_per_study: Annotated[float, Gt(0)] = 1.0
    max_epsilon_total: Annotated[float, Gt(0)] = 3.0  # per dataset, over all studies
    max_delta: Annotated[float, Gt(0), Lt(1)] = 1e-3
    minimum_patients: Annotated[int, Ge(1), Le(10_000_000)] = 30
    minimum_sites: Annotated[int, Ge(3), Le(128)] = 3
    minimum_threshold: Annotated[int, Ge(2), Le(128)] = 3
    minimum_witnesses: Annotated[int, Ge(1), Le(99)] = 2  # hospitals that must have cosigned what the log says
    allowed_networks: tuple[NetworkName, ...] = OWN_NETWORKS
    allowed_mechanisms: tuple[MechanismName, ...] = ("local-dp-sgd",)
    allow_no_privacy: bool = False  # whether studies that promise patients no differential privacy may run here
    allowed_suites: tuple[SuiteChoice, ...] = ("hybrid-pq", "p256")
    max_egress_bytes_per_round: Annotated[int, Ge(1), Le(2**40)] = 64 * 2**20
    share_exact_metrics: bool = False
    allowed_owners: Annotated[tuple[OwnerFingerprint, ...], Len(0, 50)] = ()  # of studies; none: anybody's
    allowed_hours: AllowedHours | None = None  # when rounds may be trained here; none: always

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            reads=("max_epsilon_per_study", "max_epsilon_total"),
            check=_study_within_total,
        ),
    )


def _datasets_known(datasets: Mapping[str, Dataset], studies: Mapping[str, str]) -> Iterator[Finding]:
    for study, dataset in studies.items():
        if dataset not in datasets:
            yield Finding(f"studies.{study}", shown(dataset), "one of the names in datasets: " + ", ".join(datasets))


_DEVICES = "auto, cpu, cuda, or cuda:N, where N is the number of a GPU"


def _device(name: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]?))?", name) is None:
        raise Refused
    return name


def _precision_of_the_engine(precision: str, engine: str) -> Iterator[Finding]:
    if precision != "float32" and engine not in ("auto", "loop"):
        yield Finding("engine", shown(engine), f"auto or loop with precision: {precision}")


HEARTBEAT_MINUTES_MIN, HEARTBEAT_MINUTES_MAX = 15, 1440
EngineName: TypeAlias = Literal["auto", "loop", "bookkeeping", "vmap", "hooks", "ghost"]
DatasetName = Annotated[StudyName, Words("a dataset name: 3 to 64 characters of a-z, 0-9 and '-'")]


_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def _class_name(name: str) -> str:
    if _CLASS_NAME.fullmatch(name) is None:
        raise Refused
    return name


def _heartbeat_minutes(minutes: int) -> int:
    # A log is kept for years: signs of life may not be what fills it.
    if minutes and not HEARTBEAT_MINUTES_MIN <= minutes <= HEARTBEAT_MINUTES_MAX:
        raise Refused
    return minutes


def _file_digest(text: str) -> str:
    if not is_digest(text):
        raise Refused
    return text


_PythonName: TypeAlias = Annotated[
    str, AfterValidator(_class_name), Words("a name in Python: 1 to 100 letters, digits and '_'")
]
_Argument: TypeAlias = Annotated[str | int | float | bool, Words("text, a number, true or false")]


_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.][A-Za-z_][A-Za-z0-9_]*){0,9}")


def _distribution(name: str) -> str:
    if _DISTRIBUTION.fullmatch(name) is None:
        raise Refused
    return name


def _module(name: str) -> str:
    if len(name) > 200 or _MODULE.fullmatch(name) is None:
        raise Refused
    return name


def _one_source(
    file: str | None, distribution: str | None, version: str | None, module: str | None
) -> Iterator[Finding]:
    if (file is None) == (distribution is None):
        yield Finding("file", "both or neither" if file is None else "distribution too", "either file or distribution")
        return
    for key, value in (("version", version), ("module", module)):
        if (value is None) is not (distribution is None):
            wanted = "nothing with file" if distribution is None else "a value with distribution"
            yield Finding(key, "nothing" if value is None else shown(value), wanted)


class ClientAlgoFile(Section):
    """A class of `monai.fl.client.ClientAlgo` that this hospital wrote or looked at, and runs as its own code.

    It is in one Python file, or in a distribution that is installed beside the agent.
    """

    file: FilePath | None = None  # one Python file; nothing beside it is imported from its folder
    distribution: (
        Annotated[str, AfterValidator(_distribution), Words("the name of an installed distribution")] | None
    ) = None
    version: Annotated[str, AfterValidator(_distribution), Words("its version, such as 1.2.0")] | None = None
    module: Annotated[str, AfterValidator(_module), Words("a module of it, such as ward_trainer.algo")] | None = None
    sha256: Annotated[
        str,
        AfterValidator(_file_digest),
        Words("the SHA-256 of the file, or of the distribution: 64 characters of 0-9 and a-f"),
    ]
    class_name: Annotated[_PythonName, Field(alias="class")]
    args: Annotated[Mapping[_PythonName, _Argument], Len(0, 100)] = {}  # of the class, by name

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("file", "distribution", "version", "module"), check=_one_source),)

    @property
    def where(self) -> str:
        """What it is, for this hospital's own eyes."""
        return self.file or f"{self.module} of {self.distribution} {self.version}"

    @property
    def folder(self) -> Path:
        """The folder of the file; of a distribution, the one that installed packages are in."""
        return Path(self.file).parent if self.file is not None else Path(sysconfig.get_path("purelib"))


class TrainingChild(Section):
    """What the process may take in which a study is prepared, trained and measured. One study, one process."""

    memory_gib: Annotated[float, Gt(0), Le(100_000)] | None = None  # None: as much as the machine gives
    hours: Annotated[float, Gt(0), Le(10_000)] = 24.0  # that preparing a study, or one round, may take


class SiteFile(Section):
    """A hospital's configuration."""

    schema_version: Annotated[Literal["consortium/site/v1"], Field(alias="schema")]
    site: SiteName
    coordinator: Coordinator | None = None  # only where it is dialled otherwise than the enrolment kit said
    proxy: (
        Annotated[str, AfterValidator(_proxy), Words("http://host:port, the proxy to the outside, without a password")]
        | None
    ) = None
    datasets: Annotated[Mapping[DatasetName, Dataset], Len(1, 1000)]
    studies: Annotated[Mapping[StudyName, DatasetName], Len(0, 1000)]  # which dataset takes part in which study
    # How gradients are computed changes what a step costs on this machine and nothing that is promised, so it is the
    # hospital's choice and not the study's.
    engine: EngineName = "auto"
    # Where networks are computed, and in what precision: this machine's matter too. `gradients/engine.py` says why one
    # engine alone may take bfloat16.
    device: Annotated[str, AfterValidator(_device), Words(_DEVICES)] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    # Images as the network sees them are kept in the agent's home, so that the next study or start finds them ready.
    cache_gib: Annotated[float, Ge(0), Le(100_000)] = 10.0
    training_child: TrainingChild = TrainingChild()
    tensorboard: bool = False  # curves of this hospital's own test figures, in its home
    mlflow: Tracking | None = None  # the same, exact as they are, for a server of this hospital's own
    # MONAI bundles that were looked at (`site-agent bundle check`) and may define a study's network: digest -> path.
    bundles: Annotated[Mapping[BundleDigest, FilePath], Len(0, 1000)] = {}
    # Code of this hospital's own that may train in the place of the agent's trainer, in studies without differential
    # privacy that ask for it by name.
    client_algos: Annotated[Mapping[ClientAlgoName, ClientAlgoFile], Len(0, 100)] = {}
    # Files that studies begin from: SHA-256 of the file -> path. A study names one under `initial_weights`.
    weights: Annotated[Mapping[FileDigest, FilePath], Len(0, 1000)] = {}
    # Minutes between two entries by which this hospital shows that its agent is there.
    heartbeat_minutes: Annotated[
        int,
        AfterValidator(_heartbeat_minutes),
        Words(f"0, or a whole number from {HEARTBEAT_MINUTES_MIN} to {HEARTBEAT_MINUTES_MAX}"),
    ] = 60
    monitor_address: Address | None = None  # /metrics, /healthz and /readyz over plain HTTP; none by default
    policy: Policy = Policy()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("datasets", "studies"), check=_datasets_known),
        Rule(reads=("precision", "engine"), check=_precision_of_the_engine),
    )

    @property
    def site_id(self) -> SiteId:
        """The hospital's name, as its type."""
        return SiteId(self.site)

    def dataset_for(self, study: StudyId) -> Dataset | None:
        """The dataset that takes part in a study, if the hospital has named one."""
        name = self.studies.get(study)
        return self.datasets[name] if name is not None else None


def example_site_file() -> bytes:
    """The example with every option, as it ships: inside an installed wheel, or in `configs/` of a working copy."""
    packaged = Path(__file__).with_name("site.example.yaml")
    working_copy = Path(__file__).resolve().parent.parent / "configs" / "site.example.yaml"
    return (packaged if packaged.is_file() else working_copy).read_bytes()


def load_site_file(path: Path) -> SiteFile:
    """The site.yaml at `path`, with paths made absolute; raises FileInvalid with every problem in it."""
    site = yaml_file.load(path, SiteFile)
    folder = path.resolve().parent
    datasets = {name: dataset.below(folder) for name, dataset in site.datasets.items()}
    bundles = {digest: str(folder / path) for digest, path in site.bundles.items()}
    client_algos = {
        name: algo if algo.file is None else algo.model_copy(update={"file": str(folder / algo.file)})
        for name, algo in site.client_algos.items()
    }
    weights = {digest: str(folder / path) for digest, path in site.weights.items()}
    return site.model_copy(
        update={"client_algos": client_algos, "datasets": datasets, "bundles": bundles, "weights": weights}
    )
