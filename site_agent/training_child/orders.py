"""What the agent tells the training child: how to confine itself, which study, which noise. Fields of frames, and back.

The child is told no key, no secret, no name of a person and nothing of the ledger.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from consortium.contract.names import SiteId
from consortium.contract.study import StudyFile
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from site_agent.datasets import DatalistDataset, Dataset
from site_agent.image_cache import ImageCache
from site_agent.site_file import ClientAlgoFile, TrainingChild
from site_agent.training_room import Order
from site_agent.training_spec import Noise, PlainSpec, TrainingSpec, plain_spec_of, spec_of
from site_agent.withdrawals import MARK_BYTES, Withdrawn

_THE_AGENTS_OWN = (
    "agent", "carried", "certificates", "egress", "evidence", "identity.json", "images", "keys", "ledger", "log",
    "models", "overlays", "progress", "results", "site.yaml", "tensorboard", "training", "vault",
)  # fmt: skip
"""How what lies in an agent's home begins, where it is the agent's (docs/reference/files-and-folders.md)."""

_DATASET: TypeAdapter[Dataset] = TypeAdapter(Dataset)
_MECHANISMS = {kind.__name__: kind for kind in (PoissonSampledGaussian, PoissonSampledDiscreteGaussian)}


def readable_by(order: Order) -> tuple[Path, ...]:
    """Files and folders that the child needs to read, and no other of the hospital's."""
    dataset = order.dataset
    found = [path for key in type(dataset).located if (path := getattr(dataset, key)) is not None]
    if isinstance(dataset, DatalistDataset) and dataset.folder is None:
        found.append(str(Path(dataset.path).parent))
    found += order.weights.values()
    if order.client_algo is not None and order.client_algo.file is not None:
        found.append(str(order.client_algo.folder))
    home = order.models.parent.resolve()
    return (*(part for path in found for part in _without_home(Path(path).resolve(), home)), order.models)


def _without_home(path: Path, home: Path) -> Iterator[Path]:
    """A path; of a folder in which the agent's home lies, or that is the home, all but what is the agent's own."""
    if path != home and path not in home.parents:
        yield path
        return
    for entry in path.iterdir():
        if path != home:
            yield from _without_home(entry, home)
        elif not entry.name.startswith(_THE_AGENTS_OWN):
            yield entry


def writable_by(order: Order) -> tuple[Path, ...]:
    """Folders that the child writes to: made here, for the hospital's account alone."""
    folders = (order.scratch, order.carried, order.images.folder)
    for folder in (order.scratch.parent, order.carried.parent, order.models, *folders):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is not there cannot be granted
    return folders


def order_fields(order: Order) -> dict[str, Any]:
    """All of an order but the study's document."""
    algo = order.client_algo
    return {
        "dataset": json.loads(_DATASET.dump_json(order.dataset, by_alias=True)),
        "site": order.site,
        "device": order.device,
        "precision": order.precision,
        "engine": order.engine,
        "weights": dict(order.weights),
        "client_algo": None if algo is None else json.loads(algo.model_dump_json(by_alias=True)),
        "images": str(order.images.folder),
        "images_bytes": order.images.quota_bytes,
        "carried": str(order.carried),
        "models": str(order.models),
        "scratch": str(order.scratch),
        "withdrawn": _withdrawn_fields(order.withdrawn),
    }


def _withdrawn_fields(withdrawn: Withdrawn) -> dict[str, Any]:
    return {
        "key": withdrawn.key.hex(),
        "marks": b"".join(sorted(withdrawn.marks)).hex(),
        "times": withdrawn.times,
    }


def _withdrawn_of(fields: Mapping[str, Any]) -> Withdrawn:
    marks = bytes.fromhex(fields["marks"])
    whole = range(0, len(marks), MARK_BYTES)
    return Withdrawn(
        key=bytes.fromhex(fields["key"]),
        marks=frozenset(marks[at : at + MARK_BYTES] for at in whole),
        times=fields["times"],
    )


def order_of(fields: Mapping[str, Any], document: bytes) -> Order:
    """The order in a frame; what is wrong with it is this program's mistake, and raised as it comes."""
    algo = fields["client_algo"]
    return Order(
        study=StudyFile.from_document(document),
        dataset=_DATASET.validate_json(json.dumps(fields["dataset"])),
        site=SiteId(fields["site"]),
        device=fields["device"],
        precision=fields["precision"],
        engine=fields["engine"],
        weights=fields["weights"],
        client_algo=None if algo is None else ClientAlgoFile.model_validate_json(json.dumps(algo)),
        images=ImageCache(folder=Path(fields["images"]), quota_bytes=fields["images_bytes"]),
        carried=Path(fields["carried"]),
        models=Path(fields["models"]),
        scratch=Path(fields["scratch"]),
        limits=TrainingChild(),  # they are held from outside
        withdrawn=_withdrawn_of(fields["withdrawn"]),
    )


def noise_fields(spec: TrainingSpec | PlainSpec) -> dict[str, Any]:
    """The noise that was calibrated, and that the ledger is charged for; nothing where there is none."""
    if isinstance(spec, PlainSpec):
        return {"noise": None}
    mechanism = spec.privacy.mechanism
    noise = {"mechanism": type(mechanism).__name__, "sum_bound": spec.privacy.sum_bound, "numbers": asdict(mechanism)}
    return {"noise": noise}


def spec_from(order: Order, fields: Mapping[str, Any]) -> TrainingSpec | PlainSpec:
    """What is to be trained, with the noise that the agent says."""
    declared, noise = order.dataset.declared_patients, fields["noise"]
    if noise is None:
        return plain_spec_of(order.study, declared_patients=declared, weights=order.weights).at(order.site)
    mechanism = _MECHANISMS[noise["mechanism"]](**noise["numbers"])
    given = Noise(mechanism=mechanism, sum_bound=noise["sum_bound"])
    return spec_of(order.study, declared_patients=declared, weights=order.weights, noise=given).at(order.site)
