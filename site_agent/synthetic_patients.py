"""Made-up patients within the ranges of a study's data contract, for simulations. Nobody's records.

Numbers are drawn around the contract's own public means, categories evenly. A hidden linear rule decides the label,
with noise, so that there is something to learn; each site's patients differ a little from the others'.
"""

import csv
from pathlib import Path

import numpy as np

from consortium.contract.study import StudyFile
from consortium.contract.study_data import NumberFeature, TabularData
from site_agent.datasets import CsvDataset

PATIENTS = 200


def write_synthetic(path: Path, study: StudyFile, *, site: int, seed: int, patients: int = PATIENTS) -> CsvDataset:
    """A CSV of `patients` made-up patients, one record each, and the dataset that describes it.

    Args:
        path: Where the file goes.
        study: Whose contract.
        site: Number of the site; another number, other patients.
        seed: Of the simulation; the hidden rule is the same at every site.
        patients: How many.
    """
    rule, random = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1 + site))
    data = study.data
    assert isinstance(data, TabularData)  # asked for by `consortium simulate`, which says so before
    score = random.normal(size=patients) * 0.5
    columns: dict[str, list[object]] = {data.patient_id: [f"made-up-{site}-{number}" for number in range(patients)]}
    for name, feature in data.features.items():
        weight = rule.normal()
        if isinstance(feature, NumberFeature):
            low, high = feature.range
            mean, std = (
                (feature.scale.mean, feature.scale.std) if feature.scale is not None
                else ((low + high) / 2, (high - low) / 4)
            )  # fmt: skip
            values = np.clip(mean + std * (random.normal(size=patients) + 0.2 * random.normal()), low, high)
            columns[name] = [float(value) for value in values]
            score += weight * (values - mean) / std
        else:
            chosen = random.integers(len(feature.values), size=patients)
            columns[name] = [feature.values[index] for index in chosen]
            score += weight * (chosen - (len(feature.values) - 1) / 2)
    positive = score > 0
    columns[data.label.name] = [data.label.positive_above + (1 if one else 0) for one in positive]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    set_aside = data.split.test_fraction + (data.split.validation_fraction or 0)
    declared = max(1, round(patients * (1 - set_aside)))
    return CsvDataset(path=str(path), format="csv", patient_id=data.patient_id, declared_patients=declared)
