"""Everything there is to say about a bundle, for the person who decides whether this hospital takes it."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from consortium.contract.names import Digest
from consortium.contract.networks import BundlePart
from site_agent.bundles.checking import Bundle, Component, LeftOut, check_bundle
from site_agent.bundles.definition import definition_of, study_name_of
from site_agent.bundles.reading import BundleFiles, read_bundle, read_weights
from site_agent.bundles.refusals import BundleRefused, Finding
from site_agent.bundles.study_loss import StudyLoss, study_loss_of
from site_agent.bundles.study_views import StudyViews, views_of
from site_agent.errors import LossRefused, NetworkRefused

if TYPE_CHECKING:
    from torch import nn

_SHOWN_PLACES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a bundle is, would do, and why it is refused."""

    digest: Digest | None  # None if not even its files can be read
    bundle: Bundle | None  # None if anything in it is refused
    parameters: int | None  # of its network; None if it cannot be built
    weights: str  # what its weights are, in words
    changes: tuple[str, ...]  # what is done otherwise than it says
    refused: tuple[Finding, ...]  # what is not allowed in any bundle, or keeps its network from being built
    unfit: tuple[Finding, ...]  # in parts that a study says itself: what couples patients, or does not go together
    loss: StudyLoss | Finding | None  # what a study names in its loss's place, or why there is nothing; None without
    views: StudyViews | None  # what a study may say of its transforms and inferer; None if anything is refused

    @property
    def accepted(self) -> bool:
        """Whether a study may take its network over."""
        return not self.refused

    @property
    def model(self) -> dict[str, object] | None:
        """The `model` section of a study with this network; None if the bundle is not taken."""
        if self.bundle is None or self.digest is None or not self.accepted:
            return None
        network = self.bundle.network
        return {
            "network": study_name_of(network),
            "args": {"digest": self.digest, "definition": definition_of(network)},
        }

    @property
    def follows(self) -> tuple[BundlePart, ...]:
        """What else of it a study may follow, besides the network."""
        loss: tuple[BundlePart, ...] = ("loss",) if isinstance(self.loss, StudyLoss) else ()
        if self.views is None:
            return loss
        augmentation: tuple[BundlePart, ...] = ("augmentation",) if self.views.augmentation else ()
        patch: tuple[BundlePart, ...] = ("patch",) if self.views.patch is not None else ()
        return (*loss, *augmentation, *patch)

    @property
    def data(self) -> dict[str, object]:
        """What stands under `data` in a study that follows its transforms and inferer."""
        if self.views is None:
            return {}
        found: dict[str, object] = {}
        if self.views.augmentation:
            found["augmentation"] = [one.model_dump(mode="json", exclude_none=True) for one in self.views.augmentation]
        if self.views.patch is not None:
            found["patch"] = self.views.patch.model_dump(mode="json", exclude_none=True)
        return found

    def to_json(self) -> dict[str, object]:
        """For programs."""
        bundle = self.bundle
        return {
            "accepted": self.accepted,
            "digest": self.digest,
            "name": None if bundle is None else bundle.name,
            "version": None if bundle is None else bundle.version,
            "parameters": self.parameters,
            "weights": self.weights,
            "model": self.model,
            "used": []
            if bundle is None
            else [
                {
                    "id": part.id,
                    "kind": part.target.kind.value,
                    "target": part.target.name,
                    "arguments": shown_args(part),
                }
                for part in bundle.components
            ],
            "changes": list(self.changes),
            "training_loss": self.loss.name if isinstance(self.loss, StudyLoss) else None,
            "data": self.data,
            "follows": list(self.follows),
            "not_in_a_study": []
            if self.views is None
            else [{"place": one.place, "what": one.what, "why": one.why} for one in self.views.left_out],
            "left_out": []
            if bundle is None
            else [{"place": one.place, "what": one.what, "why": one.why} for one in bundle.left_out],
            "refused": [_finding_json(finding) for finding in self.refused],
            "unfit": [_finding_json(finding) for finding in self.unfit],
        }


def look_at(path: Path) -> Report:
    """A report on the bundle at `path`. Nothing of it is run; its network is built from the allow-list and thrown away.

    Errors of reading are findings like all others: this raises none of them.
    """
    try:
        files = read_bundle(path)
    except BundleRefused as refused:
        return _refusal(None, refused)
    try:
        bundle = check_bundle(files)
    except BundleRefused as refused:
        return _refusal(files, refused)
    return _built(path, files, bundle)


def shown_args(part: Component) -> dict[str, str]:
    """A component's arguments as short texts."""
    return {name: _shown(value) for name, value in part.arguments.items()}


def left_out_by_reason(left_out: tuple[LeftOut, ...]) -> list[tuple[str, str]]:
    """Why, and where: the first few places of each reason."""
    ordered = sorted(left_out, key=lambda one: one.why)
    rows = []
    for why, group in groupby(ordered, key=lambda one: one.why):
        places = [one.place.removeprefix("configs/train.json: ") for one in group]
        more = f" and {len(places) - _SHOWN_PLACES} more" if len(places) > _SHOWN_PLACES else ""
        rows.append((why, ", ".join(places[:_SHOWN_PLACES]) + more))
    return rows


def _built(path: Path, files: BundleFiles, bundle: Bundle) -> Report:
    from site_agent.bundles import building, fitting  # noqa: PLC0415 - torch and MONAI, for good bundles only

    refused: tuple[Finding, ...] = ()
    unfit = tuple(fitting.misfits(bundle))
    parameters, weights = None, "not looked at"
    try:
        network = building.network_of(bundle)(0)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        weights = _about_weights(path, bundle, network)
    except BundleRefused as error:
        refused = error.findings
    except NetworkRefused as error:
        refused = (bundle.network.finding("", error.found, error.allowed, "Use another network or layer."),)
    try:
        if not unfit:
            building.loss_of(bundle)
            building.transforms_of(bundle, 0)
        building.inferer_of(bundle)
    except BundleRefused as error:
        unfit += error.findings
    except LossRefused as error:
        assert bundle.loss is not None
        unfit += (bundle.loss.finding("", error.loss, error.why, "Use another loss."),)
    loss = None if bundle.loss is None else study_loss_of(bundle.loss)
    views = views_of(bundle)
    return Report(
        digest=files.digest,
        bundle=bundle,
        parameters=parameters,
        weights=weights,
        changes=(
            *fitting.changes(bundle),
            *(loss.changes if isinstance(loss, StudyLoss) else ()),
            *views.changes,
        ),
        refused=refused,
        unfit=unfit,
        loss=loss,
        views=views,
    )


def _about_weights(path: Path, bundle: Bundle, network: "nn.Module") -> str:
    """What the bundle's weights are; raises BundleRefused if they are not plain tensors."""
    from site_agent.bundles.weights import misfits, read_state  # noqa: PLC0415 - torch

    if bundle.weights is None:
        return "none; the study's seed gives the first model"
    state = read_state(bundle.weights.name, read_weights(path, bundle.weights))
    apart = misfits(bundle.weights.name, state, network)
    fit = f"not those of the network as it is trained here: {apart[0].found}" if apart else "those of the network"
    return f"{len(state):,} tensors in {bundle.weights.name}, {fit}"


def _refusal(files: BundleFiles | None, refused: BundleRefused) -> Report:
    return Report(
        digest=None if files is None else files.digest,
        bundle=None,
        parameters=None,
        weights="not looked at",
        changes=(),
        refused=refused.findings,
        unfit=(),
        loss=None,
        views=None,
    )


def _finding_json(finding: Finding) -> dict[str, str]:
    return {"place": finding.place, "found": finding.found, "allowed": finding.allowed, "advice": finding.advice}


def _shown(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{', '.join(map(_shown, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {_shown(part)}' for key, part in value.items())}}}"
        case None:
            return "nothing"
        case _:
            return str(getattr(value, "name", value))
