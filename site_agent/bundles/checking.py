"""A bundle's files -> what of it would be used, what is left out, or every place that is refused. Pure.

In this order, each step only on what passed the one before:

1. the files: one `configs/train.json` or `.yaml`, and `configs/metadata.json`, as plain data (`documents`);
2. metadata: no expression, reference or target in it, because MONAI evaluates those too;
3. every value of the training configuration, used or not: targets, special keys, expressions, references;
4. what is used, computed and held against the bounds of its arguments (`targets`).

A place is an id as MONAI writes it, `configs/train.json: train#handlers#0#_target_`; where a mistake shows only when a
macro has copied it, the place in the copy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from consortium.contract.errors import shown
from consortium.contract.names import Digest
from site_agent.bundles import documents, expressions, references, targets
from site_agent.bundles.documents import Value, walk
from site_agent.bundles.expressions import ExpressionRefused, Opaque
from site_agent.bundles.reading import WEIGHT_SUFFIXES, BundleFile, BundleFiles
from site_agent.bundles.references import ReferenceRefused
from site_agent.bundles.refusals import BundleRefused, Finding
from site_agent.bundles.targets import Kind, Target

METADATA = "configs/metadata.json"
TRAIN = ("configs/train.json", "configs/train.yaml", "configs/train.yml")
WEIGHTS = ("models/model.safetensors", "models/model.pt")
_SIZE_MAX = 10_000  # values within one computed value

_KNOWN_MODULES = frozenset(
    {"glob", "os", "ignite", "torch", "numpy", "numpy as np", "monai", "json", "math", "scipy", "pandas as pd", "sys"}
)
_IMPORTS = "imports"
_NETWORK = ("network_def", "network")
_LOSS = ("loss", "loss_function", "train#trainer#loss_function")
_ADVICE_TARGET = "See docs/reference/bundles.md for the list; a network of your own cannot run at a hospital this way."
_ADVICE_IMPORT = "Code of the bundle's own cannot run at a hospital; take it out."
_ADVICE_REFERENCE = "Write what is meant in place."
_ADVICE_EXPRESSION = "Write the value itself, or an expression of that kind."


@dataclass(frozen=True, slots=True, kw_only=True)
class Component(Opaque):
    """A target with its computed arguments, and where it stands."""

    file: str
    id: str
    target: Target
    arguments: Mapping[str, Value]

    def __str__(self) -> str:
        return f"the {self.target.kind.value} {self.target.name}"

    def finding(self, argument: str, found: str, allowed: str, advice: str) -> Finding:
        """A finding about one of its arguments, or with "" about itself."""
        at = f"{self.id}#{argument}" if argument else self.id
        return Finding(file=self.file, id=at, found=found, allowed=allowed, advice=advice)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pipeline(Opaque):
    """A Compose: transforms in their order."""

    id: str
    transforms: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A part of a bundle that is allowed to stand there and is never run."""

    place: str
    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle in which every word is on an allow-list."""

    digest: Digest
    name: str
    version: str
    network: Component
    loss: Component | None
    optimizer: Component | None
    schedule: Component | None
    train_transforms: tuple[Component, ...]
    validation_transforms: tuple[Component, ...]
    inferer: Component | None  # for evaluation
    weights: BundleFile | None
    left_out: tuple[LeftOut, ...]

    @property
    def components(self) -> tuple[Component, ...]:
        """All that is used, in the order of a run."""
        single = (self.network, self.loss, self.optimizer, self.schedule)
        some = [part for part in single if part is not None]
        last = (self.inferer,) if self.inferer is not None else ()
        return (*some, *self.train_transforms, *self.validation_transforms, *last)


def check_bundle(files: BundleFiles) -> Bundle:
    """What of a bundle would be used, and what is left out.

    Raises:
        BundleRefused: With every place that is not allowed.
    """
    train = _train_file(files)
    metadata_file = files.find(METADATA)
    if metadata_file is None:
        raise _whole(METADATA, "no such file", "a file with name, version and what the network expects")
    metadata = documents.parse(metadata_file)
    findings = list(_metadata_findings(metadata))
    config = documents.parse(train)
    looked = _Look(train.name)
    looked.all_of(config)
    findings += looked.findings
    try:
        resolved = references.resolve(train.name, config)
        findings += _dangling(train.name, resolved)
    except BundleRefused as refused:
        findings += (finding for finding in refused.findings if finding not in findings)
        resolved = {}
    if findings:
        raise BundleRefused(findings)
    use = _Use(train.name, resolved)
    network = use.network()
    loss = use.one(_LOSS, Kind.LOSS)
    optimizer = use.one(("optimizer",), Kind.OPTIMIZER)
    schedule = use.one(("lr_scheduler",), Kind.SCHEDULE)
    train_transforms, validation_transforms = use.transforms("train"), use.transforms("validate")
    inferer = use.one(("validate#inferer", "inferer"), Kind.INFERER)
    if use.findings or network is None:
        raise BundleRefused(use.findings)
    return Bundle(
        digest=files.digest,
        name=_word(metadata.get("name")) or "without a name",
        version=_word(metadata.get("version")) or "without a version",
        network=network,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        train_transforms=train_transforms,
        validation_transforms=validation_transforms,
        inferer=inferer,
        weights=next((file for name in WEIGHTS if (file := files.find(name)) is not None), None),
        left_out=(*_left_out_files(files, train), *looked.left_out),
    )


def _train_file(files: BundleFiles) -> BundleFile:
    found = [file for name in TRAIN if (file := files.find(name)) is not None]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none of them"
        raise _whole("", names, f"exactly one of {', '.join(TRAIN)}")
    return found[0]


def _metadata_findings(metadata: dict[str, Value]) -> Iterator[Finding]:
    """MONAI puts metadata into the configuration and evaluates what it finds there."""
    advice = "Metadata describes the bundle in words and numbers; MONAI would run this when the bundle is loaded."
    for at, value in walk(metadata):
        if isinstance(value, str) and value[:1] in ("$", "@", "%"):
            yield Finding(file=METADATA, id=at, found=shown(value), allowed="plain text", advice=advice)
        elif isinstance(value, dict):
            for key in value:
                if key.startswith("_"):
                    at_key = f"{at}#{key}" if at else key
                    yield Finding(file=METADATA, id=at_key, found=f"the key {key}", allowed="plain keys", advice=advice)


class _Look:
    """Looks at every value of a configuration as it was written. Mutable: it collects what it finds."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.findings: list[Finding] = []
        self.left_out: list[LeftOut] = []

    def all_of(self, config: dict[str, Value]) -> None:
        """Look at everything, whatever it is for."""
        for at, value in walk(config):
            match value:
                case dict():
                    self._section(at, value)
                case str() if value.startswith("$"):
                    self._expression(at, value[1:])
                case str() if value.startswith(("@", "%")) and not at.endswith("_target_"):
                    self._reference(at, value)
                case _:
                    pass

    def _section(self, at: str, section: dict[str, Value]) -> None:
        for key, value in section.items():
            inside = f"{at}#{key}" if at else key
            if key.startswith("_") and (key not in targets.SPECIAL_KEYS or "_target_" not in section):
                self._refuse(
                    inside,
                    f"the key {shown(key)}",
                    f"{', '.join(targets.SPECIAL_KEYS)} beside a target",
                    "MONAI runs such keys for their effect, or passes them on unseen; take it out.",
                )
            elif key == "_target_":
                self._target(inside, at, value)
            elif key == "_mode_" and value != "default":
                self._refuse(
                    inside,
                    f"the mode {shown(value)}",
                    '"default"',
                    "Other modes hand a function around or open a debugger; take the key out.",
                )
            elif key == "_disabled_" and not isinstance(value, (bool, str)):
                self._refuse(inside, shown(value), "true, false or an expression", "Write true or false.")

    def _target(self, inside: str, at: str, value: Value) -> None:
        if isinstance(value, str) and (value in targets.TARGETS or value in targets.COMPOSE):
            return
        if isinstance(value, str) and value in targets.LEFT_OUT:
            self.left_out.append(LeftOut(place=f"{self._file}: {at}", what=value, why=targets.LEFT_OUT[value]))
            return
        self._refuse(inside, shown(value), "a target on the allow-list, written out as its name", _ADVICE_TARGET)

    def _expression(self, at: str, text: str) -> None:
        if at.endswith("_target_"):
            return  # refused as a target
        if at.partition("#")[0] == _IMPORTS and text.startswith("import "):
            if text.removeprefix("import ").strip() in _KNOWN_MODULES:
                why = "imports: nothing is imported for a bundle; what its expressions may name is fixed"
                self.left_out.append(LeftOut(place=f"{self._file}: {at}", what=text, why=why))
            else:
                allowed = f"under {_IMPORTS}, and without effect: {', '.join(sorted(_KNOWN_MODULES))}"
                self._refuse(at, shown(text), allowed, _ADVICE_IMPORT)
            return
        try:
            checked = expressions.check(text)
        except ExpressionRefused as error:
            self._refuse(at, error.found, error.allowed, _ADVICE_EXPRESSION)
            return
        if checked.left_out is not None:
            self.left_out.append(LeftOut(place=f"{self._file}: {at}", what=f"${text}"[:80], why=checked.left_out))

    def _reference(self, at: str, text: str) -> None:
        if text[1:2] in ("#", ":"):
            return  # relative ids: `references.resolve` knows where they lead
        try:
            references.referred(text)
        except ReferenceRefused as error:
            self._refuse(at, error.found, error.allowed, _ADVICE_REFERENCE)

    def _refuse(self, at: str, found: str, allowed: str, advice: str) -> None:
        self.findings.append(Finding(file=self._file, id=at, found=found, allowed=allowed, advice=advice))


def _dangling(file: str, resolved: dict[str, Value]) -> Iterator[Finding]:
    """References that lead nowhere, used or not."""
    for at, value in walk(resolved):
        if isinstance(value, str) and value.startswith("@"):
            try:
                references.find(resolved, references.referred(value))
            except ReferenceRefused as error:
                yield Finding(file=file, id=at, found=error.found, allowed=error.allowed, advice=_ADVICE_REFERENCE)


class _Misfit(Exception):
    """A value that cannot be used, with the innermost place it comes from."""

    def __init__(self, at: str, found: str, allowed: str) -> None:
        super().__init__(found)
        self.at = at
        self.found = found
        self.allowed = allowed


class _NotRun(Opaque):
    """In place of a component that is left out or disabled."""

    def __str__(self) -> str:
        return "something that is not run here"


class _Use:
    """Computes what is used. Mutable: it collects findings, and the values of ids on the way."""

    def __init__(self, file: str, config: dict[str, Value]) -> None:
        self._file = file
        self._config = config
        self._values: dict[str, Value] = {}
        self._waiting: list[str] = []
        self.findings: list[Finding] = []

    def network(self) -> Component | None:
        """The network, without which there is no bundle: None only with a finding that says so."""
        found = self.one(_NETWORK, Kind.NETWORK)
        if found is None and not self.findings:
            self._refuse(_NETWORK[0], "no network", "a network on the allow-list", _ADVICE_TARGET)
        return found

    def one(self, ids: tuple[str, ...], kind: Kind) -> Component | None:
        """The component at the first of the ids that is there."""
        id_ = next((id_ for id_ in ids if self._is_there(id_)), None)
        found = () if id_ is None else self._components(id_, kind)
        return found[0] if found else None

    def transforms(self, section: str) -> tuple[Component, ...]:
        """What a section does to a record after it was read."""
        id_ = f"{section}#preprocessing"
        return self._components(id_, Kind.TRANSFORM) if self._is_there(id_) else ()

    def _is_there(self, id_: str) -> bool:
        try:
            references.find(self._config, id_)
        except ReferenceRefused:
            return False
        return True

    def _components(self, id_: str, kind: Kind) -> tuple[Component, ...]:
        """The components that a configuration stands for, those left out not among them."""
        try:
            found = tuple(self._flat(id_, self.value_of(id_)))
        except _Misfit as misfit:
            self._refuse(misfit.at, misfit.found, misfit.allowed, _ADVICE_EXPRESSION)
            return ()
        except RecursionError:
            self._refuse(id_, "references that lead too far", f"at most {references.CHAIN_MAX}", _ADVICE_EXPRESSION)
            return ()
        for component in found:
            if component.target.kind is not kind:
                what = f"{component.target.name}, which is for something else ({component.target.kind.value})"
                self._refuse(component.id, what, f"a {kind.value}", _ADVICE_TARGET)
                return ()
            for name, given, allowed in targets.objections(component.target, component.arguments):
                self.findings.append(component.finding(name, given, allowed, "Change the argument."))
        return found

    def _flat(self, id_: str, value: Value) -> Iterator[Component]:
        match value:
            case Component():
                yield value
            case _Pipeline():
                yield from self._flat(f"{value.id}#transforms", value.transforms)
            case list():
                for index, part in enumerate(value):
                    yield from self._flat(f"{id_}#{index}", part)
            case _NotRun() | None:
                pass
            case _:
                raise _Misfit(id_, shown(value), "a section with a _target_")

    def value_of(self, id_: str) -> Value:
        """The computed value of an id; components stand for themselves. Raises _Misfit."""
        if id_ in self._values:
            return self._values[id_]
        if id_ in self._waiting:
            circle = " -> ".join([*self._waiting[self._waiting.index(id_) :], id_][-4:])
            raise _Misfit(id_, f"references that go in a circle, {shown(circle)}", "references that end")
        if len(self._waiting) >= references.CHAIN_MAX * 4:
            raise _Misfit(id_, "references that lead too far", f"at most {references.CHAIN_MAX}")
        self._waiting.append(id_)
        try:
            value = self._computed(id_, references.find(self._config, id_))
            _require_small(id_, value)
        except (ExpressionRefused, ReferenceRefused) as error:
            raise _Misfit(id_, error.found, error.allowed) from None
        finally:
            self._waiting.pop()
        self._values[id_] = value
        return value

    def _computed(self, id_: str, written: Value) -> Value:
        match written:
            case str() if written.startswith("$"):
                return expressions.compute(expressions.check(written[1:]), self.value_of)
            case str() if written.startswith("@"):
                return self.value_of(references.referred(written))
            case list():
                parts = [self.value_of(f"{id_}#{index}") for index in range(len(written))]
                return [part for part in parts if not isinstance(part, _NotRun)]
            case dict() if "_target_" in written:
                return self._component(id_, written)
            case dict():
                return {key: self.value_of(f"{id_}#{key}") for key in written}
            case _:
                return written

    def _component(self, id_: str, written: dict[str, Value]) -> Value:
        name = written["_target_"]
        disabled = self.value_of(f"{id_}#_disabled_") if "_disabled_" in written else False
        if disabled is True or (isinstance(disabled, str) and disabled.strip().lower() == "true"):
            return _NotRun()
        if name in targets.LEFT_OUT:
            return _NotRun()
        if name in targets.COMPOSE:
            inner = self.value_of(f"{id_}#transforms") if "transforms" in written else []
            return _Pipeline(id=id_, transforms=inner)
        target = targets.TARGETS[name]
        wired = targets.WIRING.get(target.kind, frozenset())
        arguments = {
            key: self.value_of(f"{id_}#{key}")
            for key in written
            if key not in targets.SPECIAL_KEYS and key not in wired
        }
        return Component(file=self._file, id=id_, target=target, arguments=arguments)

    def _refuse(self, at: str, found: str, allowed: str, advice: str) -> None:
        self.findings.append(Finding(file=self._file, id=at, found=found, allowed=allowed, advice=advice))


def _require_small(id_: str, value: Value) -> None:
    """Lists of the same list can be larger than they look; what is used of them is copied."""
    count = 0
    waiting = [value]
    while waiting:
        part = waiting.pop()
        count += 1
        if count > _SIZE_MAX:
            raise _Misfit(id_, "a value that grows too large", f"at most {_SIZE_MAX} values in one")
        if isinstance(part, (list, dict)):
            waiting += part.values() if isinstance(part, dict) else part


def _left_out_files(files: BundleFiles, train: BundleFile) -> Iterator[LeftOut]:
    """The files that are part of the bundle's digest and are not read."""
    for file in files.files:
        if file.name in (METADATA, train.name):
            continue
        if file.suffix == ".conf":
            why = "logging: the agent has its own; such a file can run code in the program that reads it"
        elif file.suffix in WEIGHT_SUFFIXES:
            if file.name in WEIGHTS:
                continue
            why = "files: only the weights under models/model are looked at"
        elif file.content is not None:
            why = "files: only the training configuration and the metadata are used"
        else:
            why = "documents: for people"
        yield LeftOut(place=file.name, what=f"{file.size_bytes:,} bytes", why=why)


def _word(value: Value) -> str:
    return shown(value)[1:-1] if isinstance(value, str) else ""


def _whole(file: str, found: str, allowed: str) -> BundleRefused:
    return BundleRefused([Finding(file=file, found=found, allowed=allowed, advice="Add the file.")])
