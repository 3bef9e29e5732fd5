"""The demo's last table for studies of images: the federated model beside each hospital's own, and beside the pooled.

The study's network is trained again, without any privacy, on each hospital's patients and on everybody's: for as many
steps as the study has, by Adam. Only a demonstration can do this, because only here are all images on one machine.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from consortium.contract.study import StudyFile
from site_agent.class_tally import ClassScores
from site_agent.cohort import Cohort, Records
from site_agent.dice_tally import Overlaps
from site_agent.evaluate import evaluate
from site_agent.evaluation import Evaluation
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.tally import exact_auc
from site_agent.training_spec import OptimizerSpec, PlainSpec, network_spec_of, view_spec_of
from site_agent.update import vector_of

LEARNING_RATE = 0.005
AT_ONCE = 2
"""Networks that are trained at the same time, each on one core."""
EVERYBODY = "pooled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One model's figure, the one `figure_of` says; None where it has no meaning."""

    here: Mapping[str, float | None]  # by hospital, over its own test patients
    everywhere: float | None  # over the test patients of all hospitals together


def figure_of(study: StudyFile) -> str:
    """What the table is about, as metrics spell it: by the label, a mask, one of several classes, or one of two."""
    if study.data.label_shape:
        return "dice"
    return "auc" if study.data.outputs == 1 else "accuracy"


def compared(
    study: StudyFile, cohorts: Mapping[str, Cohort], say: Callable[[str], None]
) -> tuple[Mapping[str, Figures], Figures]:
    """Every hospital's own model, and the one of all patients in one place; `say` hears how it goes."""
    sides = {site: cohort.train for site, cohort in cohorts.items()} | {
        EVERYBODY: joined([c.train for c in cohorts.values()])
    }
    say(
        f"For comparison, without privacy: the network trained at each hospital alone, and on all "
        f"{sides[EVERYBODY].patient_count} patients in one place"
    )
    # Built one after another: first weights come from a generator that all threads share.
    trainers = {name: PlainTrainer(_plain(study), records) for name, records in sides.items()}
    first = vector_of(build_from(network_spec_of(study)))

    def finish(name: str) -> NDArray[np.float32]:
        update: NDArray[np.float32] = trainers[name].train_round(first).update.astype(np.float32)
        trained: NDArray[np.float32] = first + update
        say(f"  {name}: trained")
        return trained

    # The longest first.
    names = sorted(sides, key=lambda name: -sides[name].patient_count)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        models = dict(zip(names, pool.map(finish, names), strict=True))
    found = {name: _measured(study, model, cohorts) for name, model in models.items()}
    everybody = found.pop(EVERYBODY)
    return {site: found[site] for site in cohorts}, everybody


def results_table(
    study: StudyFile,
    federated: Figures,
    alone: Mapping[str, Figures],
    everybody: Figures,
    *,
    patients: Mapping[str, int],
    spent: Mapping[str, str],
) -> Table:
    """A row for each hospital's test patients, a column for each model."""
    name = {"dice": "Dice", "auc": "AUC", "accuracy": "Accuracy"}[figure_of(study)]
    table = Table(
        title=f"{name} on patients set aside for testing, by model", title_justify="left", header_style="bold"
    )
    table.add_column("tested on")
    table.add_column("patients", justify="right")
    table.add_column("federated, private" if study.is_private else "federated", justify="right", style="bold")
    for site in alone:
        table.add_column(f"{site} alone*", justify="right")
    table.add_column("pooled*", justify="right")
    table.add_column("epsilon spent", justify="right")
    models = [federated, *alone.values(), everybody]
    for site in alone:
        table.add_row(site, str(patients[site]), *(_shown(one.here[site]) for one in models), spent[site])
    table.add_section()
    total = sum(patients.values())
    table.add_row("everybody", str(total), *(_shown(one.everywhere) for one in models), "")
    return table


def verdict(federated: Figures, alone: Mapping[str, Figures]) -> str:
    """Whether the federated model beats every hospital's own on everybody's test patients."""
    known = {site: one.everywhere for site, one in alone.items() if one.everywhere is not None}
    if federated.everywhere is None or not known:
        return "Federated and alone cannot be compared here: a figure is undefined."
    best = max(known, key=lambda site: known[site])
    beats = federated.everywhere > known[best]
    return (
        f"On everybody's test patients the federated model {'beats' if beats else 'does NOT beat'} every hospital "
        f"alone: {federated.everywhere:.3f}, and {known[best]:.3f} for the best of them, {best}."
    )


def footnote(study: StudyFile) -> str:
    """How the other columns came about."""
    steps = _steps(study)
    return (
        "* Computed by this demonstration alone, without any privacy, because all images happen to be on this machine: "
        f"the study's network, {steps} steps of Adam with a learning rate of {LEARNING_RATE:g}, each on "
        f"{study.training.sampling_rate:.0%} of the patients."
    )


def _steps(study: StudyFile) -> int:
    return study.training.rounds * study.training.local_steps


def _plain(study: StudyFile) -> PlainSpec:
    return PlainSpec(
        network=network_spec_of(study),
        optimizer=OptimizerSpec(learning_rate=LEARNING_RATE, betas=(0.9, 0.999)),
        local_steps=_steps(study),
        batch_part=study.training.sampling_rate,
        max_records_per_patient=study.privacy.max_records_per_patient,
        declared_patients=study.data.minimum_patients,
        views=view_spec_of(study),
    )


def _measured(study: StudyFile, model: NDArray[np.float32], cohorts: Mapping[str, Cohort]) -> Figures:
    network = network_spec_of(study)
    module = build_from(network)
    found = {
        site: evaluate(module, model, cohort.test, study.evaluation, outputs=network.outputs, patch=study.data.patch)
        for site, cohort in cohorts.items()
    }
    return Figures(here={site: _figure([one]) for site, one in found.items()}, everywhere=_figure([*found.values()]))


def _figure(parts: Sequence[Evaluation]) -> float | None:
    """Over the patients of all parts together."""
    scores: list[Any] = [part.scores for part in parts]
    if isinstance(scores[0], Overlaps):
        dice = np.concatenate([one.dice[:, 0] for one in scores])
        return None if np.isnan(dice).all() else float(np.nanmean(dice))
    if isinstance(scores[0], ClassScores):
        return float(np.mean(np.concatenate([one.probabilities.argmax(axis=1) == one.labels for one in scores])))
    return exact_auc(np.concatenate([one.scores for one in scores]), np.concatenate([one.positive for one in scores]))


def joined(parts: Sequence[Records]) -> Records:
    """Several hospitals' records in one place, patients numbered on: for baselines alone."""
    offsets = np.cumsum([0, *(part.patient_count for part in parts)])
    return Records(
        features=np.concatenate([part.features for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        patients=np.concatenate([part.patients + offset for part, offset in zip(parts, offsets, strict=False)]),
        patient_count=int(offsets[-1]),
    )


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
