"""The `data` section: images beside tables, and documents of tables that stay what they were, byte for byte."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from consortium.contract import schema
from consortium.contract.schema import Section
from consortium.contract.study import StudyFile, load_study
from consortium.contract.study_data import ImagingData, StudyData
from site_agent.data_words import columns_of, sentence_of
from site_agent.site_file import SiteFile
from tests.fakes.imaging_study import PICTURES, VOLUMES

ROOT = Path(__file__).parents[3]

IMAGES = """\
data:
  kind: imaging
  task: segmentation
  modality: MR
  channels: 2
  shape: [48, 64, 48]
  spacing: [1, 1, 1.5]
  intensity: {range: [0, 4000], standardise: each-image}
  label: {type: mask, values: [0, 1, 2]}
  minimum_patients: 30
  split: {test_fraction: 0.25, seed: 7, stratify: false}
"""


def as_images(tmp_path: Path, text: str = IMAGES) -> StudyFile:
    whole = (ROOT / "configs/heart-disease/study.yaml").read_text()
    head, tail = whole[: whole.index("\ndata:") + 1], whole[whole.index("\nmodel:") + 1 :]
    model, rest = tail[: tail.index("\ntraining:")], tail[tail.index("\ntraining:") + 1 :]
    assert model.startswith("model:")
    model = "model: {network: unet, args: {channels: [8, 16]}}\n"
    rest = rest[: rest.index("\nevaluation:") + 1].replace("loss: binary-cross-entropy", "loss: dice-cross-entropy")
    rest += "evaluation: {split: site-held-out, metrics: [dice], every_rounds: 1}\n"
    file = tmp_path / "study.yaml"
    file.write_text(head + text + model + rest)
    return load_study(file)


@pytest.mark.parametrize(
    ("file", "digest"),
    [
        ("heart-disease/study.yaml", "f151e74195c827f0099a783295a37d13ea0e19bcaba1886e095699387add34ba"),
        ("studies/heart-disease-distributed.yaml", "f5fc0bdf79c6a1ce66a1e6dda49551b7c480a6e2652eed8118939cc2d131d854"),
    ],
)
def test_documents_of_tables_keep_their_digests(file: str, digest: str) -> None:
    """Hospitals approved these bytes before there were images; a key more in them would make every approval void."""
    assert load_study(ROOT / "configs" / file).digest() == digest


def data_of(**changes: Any) -> ImagingData:
    found = TypeAdapter(StudyData).validate_python({**VOLUMES, **changes})
    assert isinstance(found, ImagingData)
    return found


def test_what_networks_ask_of_images() -> None:
    volumes = data_of(channels=2)
    assert (volumes.input_shape, volumes.outputs, volumes.label_shape) == ((2, 12, 10, 8), 3, (12, 10, 8))
    assert volumes.label_values == (0, 1, 2)
    pictures = data_of(**PICTURES)
    assert (pictures.input_shape, pictures.outputs, pictures.label_shape) == ((1, 16, 16), 1, ())
    assert pictures.label_values == ()
    classes = data_of(**{**PICTURES, "label": {"type": "classes", "values": ("a", "b", "c")}})
    assert (classes.outputs, classes.label_shape, classes.label_values) == (3, (), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("changes", "path", "found"),
    [
        ({"kind": "films"}, "data.kind", '"films"'),
        ({"channels": 0}, "data.channels", "0"),
        ({"shape": (8,)}, "data.shape", "a list of 1"),
        ({"shape": (7, 8, 8)}, "data.shape[0]", "7"),
        ({"shape": (1024, 1024, 128)}, "data.shape", "134217728 numbers in a record"),
        ({"spacing": (1.0, 1.0)}, "data.spacing", "2 numbers for 3 axes"),
        ({"spacing": (0.0, 1.0, 1.0)}, "data.spacing[0]", "0"),
        ({"modality": "XRAY"}, "data.modality", '"XRAY"'),
        ({"task": "classification"}, "data.label.type", "mask"),
        ({"label": {"type": "binary", "positive_above": 0.0}}, "data.label.type", "binary"),
        ({"label": {"type": "mask", "values": (0, 1, 1)}}, "data.label.values[2]", "1 a second time"),
        ({"label": {"type": "mask", "values": (0, 70_000)}}, "data.label.values[1]", "70000"),
        ({"intensity": {"range": (5.0, 1.0)}}, "data.intensity.range", "5 to 1"),
        ({"intensity": {"range": (0.0, 1.0), "scale": {"mean": 3.0, "std": 1.0}}}, "data.intensity.scale.mean", "3"),
        (
            {"intensity": {"range": (0.0, 9.0), "scale": {"mean": 3.0, "std": 1.0}, "standardise": "each-image"}},
            "data.intensity.standardise",
            "each-image",
        ),
        ({"split": {"test_fraction": 0.2, "seed": 1, "stratify": True}}, "data.split.stratify", "true"),
        ({"patient_id": "patient"}, "data.patient_id", "an unknown key"),
    ],
)
def test_wrong_images_are_said_in_words(changes: dict[str, Any], path: str, found: str) -> None:
    problems = schema.problems_of(StudyFile, {"data": {**VOLUMES, **changes}})
    told = {problem.path: problem.found for problem in problems}
    assert path in told, told
    assert found in told[path]


def test_a_study_of_images_as_yaml_and_as_its_document(tmp_path: Path) -> None:
    study = as_images(tmp_path)
    assert isinstance(study.data, ImagingData)
    assert study.data.spacing == (1.0, 1.0, 1.5)
    again = StudyFile.from_document(study.document())
    assert again == study
    assert again.digest() == study.digest()
    assert as_images(tmp_path, IMAGES.replace("seed: 7", "seed: 8")).digest() != study.digest()


def test_what_stewards_and_the_log_are_told() -> None:
    volumes = data_of(spacing=(1.0, 1.0, 1.5))
    assert sentence_of(volumes) == (
        "MRI volumes (MR, 1 channel), resampled to 1 x 1 x 1.5 mm and cut or padded to 12 x 10 x 8, each with a mask "
        "of 3 values; nothing else of a file is used"
    )
    logged = ("MRI volumes (MR), 1 channel", "cut or padded to 12 x 10 x 8", "with a mask of 3 values")
    assert columns_of(volumes) == logged
    films = data_of(**{**PICTURES, "label": {"type": "binary", "positive_above": 0.5, "name": "p" * 60}})
    assert "with a label " + "p" * 60 + ": above 0.5 or not" in sentence_of(films)
    assert all(len(column) <= 64 for column in columns_of(films))


# --- rules ---------------------------------------------------------------------------------------------------------


def sections(kind: Any, metadata: tuple[object, ...] = ()) -> Iterator[type[Section]]:
    """Every section below a type."""
    kind, metadata = schema._unwrap(kind, metadata)
    union = schema._tagged(kind, metadata)
    members = list(union[1].values()) if union else [kind]
    for member in members:
        if isinstance(member, type) and issubclass(member, Section):
            yield member
            for field in member.model_fields.values():
                yield from sections(*schema._field_type(field))
        else:
            for argument in get_args(member):
                yield from sections(argument)


def leads_somewhere(section: type[Section], names: list[str]) -> bool:
    field = schema.keys_of(section).get(names[0]) or section.model_fields.get(names[0])
    if field is None:
        return False
    if len(names) == 1:
        return True
    kind, metadata = schema._field_type(field)
    union = schema._tagged(kind, metadata)
    members = list(union[1].values()) if union else [kind]
    return any(leads_somewhere(member, names[1:]) for member in members)


@pytest.mark.parametrize("top", [StudyFile, SiteFile])
def test_every_path_a_rule_reads_is_there(top: type[Section]) -> None:
    """A rule has no say where another member of a union is in the file: a path that is in none would go unnoticed."""
    every = set(sections(top))
    assert len(every) > 3
    reads = [(section, path) for section in every for rule in section.rules for path in rule.reads]
    assert [(section.__name__, path) for section, path in reads if not leads_somewhere(section, path.split("."))] == []
    assert not leads_somewhere(StudyFile, ["data", "featurs"])
