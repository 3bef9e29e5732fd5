"""What the demo's hospitals have in studies of images: files made up here, or a public data set divided among them.

A hospital's `site.yaml` is written too, with rules just as wide as the study needs; a real hospital writes its own.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData
from consortium.errors import ConsortiumError
from site_agent.phantoms import SCANNERS, write_phantoms

PHANTOM_PATIENTS = 300
PHANTOM_VOLUME_PATIENTS = 200
DIVISION_SEED = 0
EGRESS_BYTES = 16 * 2**20

ILL_SHARES, HEALTHY_SHARES = (0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)
"""Of all radiographs with and without pneumonia, what the first, second, third and fourth hospital has."""

_PAIRS = "a folder with imagesTr and labelsTr, the NIfTI pairs of the Decathlon's Task04_Hippocampus"
_NPZ = "pneumoniamnist.npz, a file of MedMNIST"
_NEEDED = {
    "chest-xray": _NPZ,
    "chest-xray-distributed": _NPZ,
    "hippocampus": _PAIRS,
    "hippocampus-dp": _PAIRS,
}
"""By study: what `--data` names. Phantoms are made up and need nothing."""

Section: TypeAlias = dict[str, Any]
"""One dataset of a `site.yaml`."""


class DemoDataMissing(ConsortiumError):
    """A study needs images that do not come with this package, and none, or others, were named."""

    code = "invalid"

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"--data: found {found}; allowed: {allowed}")

    def advice(self) -> str:
        """What to do next."""
        return "docs/how-to/try-imaging-studies.md says where they can be had."


def prepares(study: StudyFile) -> bool:
    """Whether the demo knows what the hospitals of this study have."""
    return isinstance(study.data, ImagingData) and study.id in _DATASETS


def require_data(study: StudyFile, data: Path | None) -> None:
    """Refuse a missing or needless path before anything is written; raises DemoDataMissing."""
    kind = _NEEDED.get(study.id) if prepares(study) else None
    if kind is None:
        if data is not None:
            raise DemoDataMissing("a path", f"nothing: what the hospitals of {study.id} have is known")
    elif data is None:
        raise DemoDataMissing("nothing", kind)
    elif not (data.is_dir() if kind is _PAIRS else data.is_file()):
        raise DemoDataMissing("no such folder" if kind is _PAIRS else "no such file", kind)


def site_files(study: StudyFile, data: Path | None, folder: Path) -> Mapping[str, str]:
    """The text of every hospital's `site.yaml`.

    Args:
        study: One that `prepares` knows.
        data: What `--data` named: nothing for made-up images, else the file or folder of the data set; see
            `require_data`.
        folder: Where files are made, in a folder for each hospital.

    Raises:
        DemoDataMissing: `data` is missing, or not what the study needs.
    """
    require_data(study, data)
    datasets = _DATASETS[study.id](study, data, folder)
    return {site: _site_file(study, site, dataset) for site, dataset in datasets.items()}


def _site_file(study: StudyFile, site: str, dataset: Section) -> str:
    """YAML is written as JSON is, value by value, so that any path may stand in it."""
    patients = study.data.minimum_patients
    policy: Section = {
        "require_approval": True,
        "minimum_patients": patients,
        "minimum_sites": study.sites.minimum,
        "minimum_threshold": study.aggregation.threshold,
        "allowed_networks": [study.model.network],
        "max_egress_bytes_per_round": EGRESS_BYTES,
        "share_exact_metrics": True,  # these are public images, or nobody's
    }
    if study.is_private:
        policy["allowed_mechanisms"] = [study.privacy.mechanism]
        policy |= {"max_epsilon_per_study": study.privacy.epsilon, "max_epsilon_total": study.privacy.epsilon}
        policy["max_delta"] = study.privacy.delta
    else:
        policy["allow_no_privacy"] = True
    sections: Mapping[str, Section] = {
        "datasets": {"images": dataset},
        "studies": {study.id: "images"},
        "policy": policy,
    }
    lines = [
        "# Written by the demonstration, with rules just as wide as its study needs.",
        "# Every option, with its default and unit, is in configs/site.example.yaml.",
        "schema: consortium/site/v1",
        f"site: {site}",
    ]
    for name, section in sections.items():
        lines += ["", f"{name}:"]
        for key, value in section.items():
            if isinstance(value, dict):
                lines += [f"  {key}:", *(f"    {inner}: {json.dumps(one)}" for inner, one in value.items())]
            else:
                lines.append(f"  {key}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _trained(study: StudyFile, patients: int) -> int:
    """Of so many patients, those that are trained on: what a hospital declares."""
    return patients - sum(study.data.split.sizes(patients))


# --- phantoms ------------------------------------------------------------------------------------------------------


def _phantoms(study: StudyFile, _data: Path | None, folder: Path) -> dict[str, Section]:
    assert isinstance(study.data, ImagingData)  # asked for by `prepares`
    shape = study.data.shape
    flat = len(shape) == 2
    patients = PHANTOM_PATIENTS if flat else PHANTOM_VOLUME_PATIENTS
    found: dict[str, Section] = {}
    for number, site in enumerate(study.sites.roster):
        where = folder / site
        scanner = SCANNERS.get(site, list(SCANNERS.values())[number % len(SCANNERS)])
        listed = write_phantoms(where, scanner, shape, patients=patients, seed=number)
        files: Section = (
            {"format": "image-folder", "path": str(where), "table": str(listed)}
            if flat
            else {"format": "datalist", "path": str(listed), "folder": str(where), "patient_id": None}
        )
        found[site] = {**files, "declared_patients": _trained(study, patients)}
    return found


# --- chest radiographs ---------------------------------------------------------------------------------------------


def _radiographs(study: StudyFile, data: Path | None, folder: Path) -> dict[str, Section]:
    """All images of a MedMNIST file among the hospitals, the ill and the healthy in different shares."""
    assert data is not None  # asked for by `require_data`
    try:
        with np.load(data, allow_pickle=False) as file:
            labels = {part: file[f"{part}_labels"].ravel() for part in ("train", "val", "test")}
    except (OSError, ValueError, KeyError, EOFError):
        raise DemoDataMissing("another file, or a damaged one", _NEEDED[study.id]) from None
    places = [(part, image) for part, of in labels.items() for image in range(len(of))]
    divided = _divided(np.concatenate(list(labels.values())) > 0, len(study.sites.roster))
    found: dict[str, Section] = {}
    for site, chosen in zip(study.sites.roster, divided, strict=True):
        (folder / site).mkdir(parents=True)
        index = folder / site / "index.csv"
        with index.open("w", newline="", encoding="utf-8") as table:
            writer = csv.writer(table)
            writer.writerow(("part", "image"))
            writer.writerows(places[place] for place in chosen)
        found[site] = {
            "format": "medmnist", "path": str(data.resolve()), "index": str(index),
            "declared_patients": _trained(study, len(chosen)),
        }  # fmt: skip
    return found


def _divided(ill: NDArray[np.bool_], hospitals: int) -> Sequence[Sequence[int]]:
    """Places of each hospital's images, every place once; a fifth hospital gets the shares of the first."""
    random = np.random.default_rng(DIVISION_SEED)
    parts: list[list[int]] = [[] for _ in range(hospitals)]
    for members, shares in ((np.flatnonzero(ill), ILL_SHARES), (np.flatnonzero(~ill), HEALTHY_SHARES)):
        own = np.array([shares[number % len(shares)] for number in range(hospitals)])
        cuts = np.round(np.cumsum(own / own.sum())[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(random.permutation(members), cuts), strict=True):
            part.extend(piece.tolist())
    return [sorted(part) for part in parts]


# --- hippocampus ---------------------------------------------------------------------------------------------------


def _hippocampus(study: StudyFile, data: Path | None, folder: Path) -> dict[str, Section]:
    """The pairs of a folder laid out by the Medical Segmentation Decathlon, dealt out one by one."""
    assert data is not None  # asked for by `require_data`
    names = sorted(
        image.name
        for image in (data / "imagesTr").glob("[!.]*.nii*")
        if (data / "labelsTr" / image.name).is_file()
    )  # fmt: skip
    hospitals = len(study.sites.roster)
    least = study.data.minimum_patients
    if len(names) < hospitals * least:
        raise DemoDataMissing(f"{len(names)} pairs", f"{_NEEDED[study.id]}; {hospitals * least} pairs or more")
    found: dict[str, Section] = {}
    for number, site in enumerate(study.sites.roster):
        own = names[number::hospitals]
        (folder / site).mkdir(parents=True)
        entries = [{"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"} for name in own]
        listed = folder / site / "dataset.json"
        listed.write_text(json.dumps({"training": entries}, indent=1))
        found[site] = {
            "format": "datalist", "path": str(listed), "folder": str(data.resolve()), "patient_id": None,
            "declared_patients": _trained(study, len(own)),
        }  # fmt: skip
    return found


_DATASETS: Mapping[str, Callable[[StudyFile, Path | None, Path], dict[str, Section]]] = {
    "phantoms": _phantoms,
    "phantoms-3d": _phantoms,
    "chest-xray": _radiographs,
    "chest-xray-distributed": _radiographs,
    "hippocampus": _hippocampus,
    "hippocampus-dp": _hippocampus,
}
"""By study: datasets of its hospitals."""
