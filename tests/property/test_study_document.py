"""One study, one document: order, comments and spelling mean nothing, and every document reads back."""

import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consortium.contract.errors import DocumentInvalid
from consortium.contract.study import StudyFile, load_study

names = st.from_regex(r"[a-z][a-z0-9]{2,10}", fullmatch=True)
columns = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
texts = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=30).filter(
    lambda text: bool(text.strip()) and text.isprintable()
)
positive = st.floats(1e-6, 1e6)


@st.composite
def number_features(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2, unique=True)))
    feature: dict[str, Any] = {"type": "number", "range": (low, high)}
    if draw(st.booleans()):
        feature["unit"] = draw(texts)
    if draw(st.booleans()):
        feature["scale"] = {"mean": draw(st.floats(low, high)), "std": draw(positive)}
        if draw(st.booleans()):
            feature["absent"] = draw(st.floats(-1e6, 1e6))
    return feature


@st.composite
def category_features(draw: st.DrawFn) -> dict[str, Any]:
    whole = st.lists(st.integers(-100, 100), min_size=2, max_size=5, unique=True)
    words = st.lists(texts, min_size=2, max_size=5, unique=True)
    return {"type": "category", "values": tuple(draw(whole | words))}


clips = st.just({}) | st.dictionaries(st.sampled_from(["0.weight", "0.bias"]), st.floats(1e-9, 1e6), min_size=1).map(
    lambda named: {"tensor_clips": named}
)


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """A valid study as plain data."""
    sites = draw(st.lists(names, min_size=3, max_size=9, unique=True))
    used = draw(st.lists(columns, min_size=3, max_size=7, unique=True))
    rounds = draw(st.integers(1, 1000))
    patients = draw(st.integers(1, 1000))
    hidden = draw(st.lists(st.integers(1, 4096), min_size=1, max_size=4))
    return {
        "schema": "consortium/study/v1",
        "id": draw(names),
        "title": draw(texts),
        "governance": {
            "sponsor": draw(texts),
            "contact": draw(texts),
            "purpose": draw(texts),
            "ethics": {"reference": draw(texts), "authority": draw(texts)},
            "legal_basis": {"hipaa": draw(st.sampled_from(["authorization", "waiver"]))},
            "retention_years": draw(st.integers(1, 100)),
            "expires": draw(st.dates(date(2000, 1, 1), date(9999, 12, 31))),
        },
        "sites": {"required": tuple(sites), "minimum": draw(st.integers(3, len(sites)))},
        "data": {
            "kind": "tabular",
            "patient_id": used[0],
            "features": {name: draw(number_features() | category_features()) for name in used[2:]},
            "label": {"name": used[1], "type": "binary", "positive_above": draw(st.floats(-10, 10))},
            "missing": "drop",
            "minimum_patients": patients,
            "split": {
                "test_fraction": draw(st.floats(0.01, 0.99)),
                "seed": draw(st.integers(0, 2**32 - 1)),
                "stratify": draw(st.booleans()),
            },
        },
        "model": draw(
            st.sampled_from(
                [
                    {"network": "logistic", "args": {}},
                    {"network": "mlp", "args": {"hidden": tuple(hidden), "activation": "relu"}},
                ]
            )
        ),
        "training": {
            "rounds": rounds,
            "local_steps": draw(st.integers(1, 1000)),
            "sampling_rate": draw(st.floats(1e-6, 1)),
            "optimizer": {"name": "sgd", "learning_rate": draw(st.floats(1e-6, 1000)), "momentum": 0.5},
            "algorithm": "fedavg",
            "server_learning_rate": draw(st.floats(1e-6, 10)),
            "weighting": draw(st.sampled_from(["uniform", "patients"])),
            "loss": "binary-cross-entropy",
            "seed": draw(st.integers(0, 2**32 - 1)),
        },
        "privacy": {
            "mechanism": "local-dp-sgd",
            "unit": "patient",
            "epsilon": draw(positive),
            "delta": draw(st.floats(1e-12, 0.9 / patients)),
            "clip_norm_l2": draw(positive),
            "max_records_per_patient": draw(st.integers(1, 10_000)),
        },
        "aggregation": {
            "protocol": "secagg-v1",
            "modulus_bits": draw(st.sampled_from([32, 64])),
            "threshold": draw(st.integers(len(sites) // 2 + 1, len(sites))),
            "round_deadline_s": 600.0,
            "upload_deadline_s": draw(st.floats(1e-3, 600)),
            "update_clip": draw(st.floats(1e-3, 1e6)),
            **draw(clips),
            "max_patients_per_site": draw(st.integers(patients, 10_000_000)),
        },
        "evaluation": {
            "split": "site-held-out",
            "metrics": tuple(draw(st.lists(st.sampled_from(["auc", "accuracy", "loss"]), min_size=1, unique=True))),
            "every_rounds": draw(st.integers(1, rounds)),
            "score_bins": draw(st.integers(2, 10_000)),
            "decision_threshold": draw(st.floats(0.01, 0.99)),
        },
    }


def yaml_lines(value: object, mixed: random.Random, indent: str = "") -> list[str]:
    """The same data as YAML, with keys in any order, comments, and whole floats now and then without a point."""
    lines: list[str] = []
    if isinstance(value, dict):
        for key in mixed.sample(list(value), len(value)):
            if mixed.random() < 0.1:
                lines.append(f"{indent}# a comment: {mixed.random()}")
            inner = yaml_lines(value[key], mixed, indent + "  ")
            nested = isinstance(value[key], dict) and value[key]
            lines += [f"{indent}{json.dumps(key)}:", *inner] if nested else [f"{indent}{json.dumps(key)}: {inner[0]}"]
        return lines or ["{}"]
    match value:
        case tuple():
            return ["[" + ", ".join(yaml_lines(item, mixed)[0] for item in value) + "]"]
        case bool() | str():
            return [json.dumps(value, ensure_ascii=False)]
        case float() if value.is_integer() and mixed.random() < 0.5:
            return [str(int(value)) if str(value) != "-0.0" else "-0.0"]
        case _:
            return [str(value)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study") / "study.yaml"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=studies(), seed=st.integers())
def test_any_spelling_of_a_study_is_one_document(file: Path, data: dict[str, Any], seed: int) -> None:
    study = StudyFile.model_validate(data)
    file.write_text("\n".join(yaml_lines(data, random.Random(seed))), encoding="utf-8")
    read = load_study(file)
    assert read == study
    assert read.document() == study.document()
    assert read.digest() == study.digest()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=studies())
def test_every_document_reads_back_with_the_same_digest(data: dict[str, Any]) -> None:
    study = StudyFile.model_validate(data)
    again = StudyFile.from_document(study.document())
    assert again == study
    assert again.digest() == study.digest()
    assert again.data.input_names == study.data.input_names


HEART = load_study(Path(__file__).parents[2] / "configs/heart-disease/study.yaml")


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(HEART.document()) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_another_study(place: int, byte: int) -> None:
    document = bytearray(HEART.document())
    document[place] = byte
    error, other = None, HEART
    try:
        other = StudyFile.from_document(bytes(document))
    except DocumentInvalid as caught:
        error = caught
    if error is not None:
        assert all(str(problem).isprintable() for problem in error.problems)
    else:
        assert (other.digest() == HEART.digest()) == (bytes(document) == HEART.document())
