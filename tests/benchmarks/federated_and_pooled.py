"""A study without differential privacy against its own network on all records in one place, for as many passes.

    python -m tests.benchmarks.federated_and_pooled hippocampus --data Task04_Hippocampus --runs 3

prints, for several first weights, the mean Dice on everybody's test patients (or the accuracy, where labels are not
masks) after federated training in one process, with secure aggregation, and after the pooled training: the study's own
optimizer, batches as large as one hospital's, so that both see every record equally often. Only with all records on
one machine can anybody do that. For a study with differential privacy only the federated figure is printed, because
nobody's pooled training has its noise.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from consortium import simulate as simulation
from consortium.assets import study_file
from consortium.contract.global_model import GlobalModel
from consortium.contract.names import SiteId
from consortium.contract.study import StudyFile, load_study
from consortium.demo_data import site_files
from consortium.demo_images import joined
from site_agent.cohort import Cohort, read_cohort
from site_agent.plain_trainer import PlainTrainer
from site_agent.site_file import load_site_file
from site_agent.trainer import DpTrainer
from site_agent.training_spec import plain_spec_of


def main() -> None:
    """Print a line for every run and the mean at the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path, help="a study file, or the name of one that ships")
    parser.add_argument("--data", type=Path, default=None, help="as for `consortium demo`")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    study = load_study(study_file(options.study))
    cohorts = cohorts_of(study, options.data)
    found = []
    for number in range(options.runs):
        figures = one_run(with_seed(study, study.training.seed + number), cohorts)
        found.append(figures)
        print(f"run {number + 1}: {words(figures)}", flush=True)
    print(f"mean of {options.runs}: {words({name: float(np.mean([one[name] for one in found])) for name in found[0]})}")


def words(figures: Mapping[str, float]) -> str:
    """For people."""
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def cohorts_of(study: StudyFile, data: Path | None) -> dict[SiteId, Cohort]:
    """Every hospital's records, divided as the demo divides them."""
    found: dict[SiteId, Cohort] = {}
    with tempfile.TemporaryDirectory() as folder:
        for site, text in site_files(study, data, Path(folder) / "data").items():
            home = Path(folder) / site
            home.mkdir(exist_ok=True)
            (home / "site.yaml").write_text(text)
            dataset = load_site_file(home / "site.yaml").dataset_for(study.study_id)
            assert dataset is not None  # the demo's own site file names it
            found[SiteId(site)] = read_cohort(study, dataset)
    return found


def with_seed(study: StudyFile, seed: int) -> StudyFile:
    """The study with other first weights."""
    return study.model_copy(update={"training": study.training.model_copy(update={"seed": seed})})


def one_run(study: StudyFile, cohorts: Mapping[SiteId, Cohort]) -> dict[str, float]:
    """By kind of training, the figure on everybody's test patients."""
    run = simulation._Run(study, DpTrainer)  # its model is wanted, not the printed figures alone
    model = run.train({site: one.train for site, one in cohorts.items()}, say=lambda _: None)
    found = {"federated": figure(run, model, cohorts)}
    if not study.is_private:
        found["pooled"] = figure(run, pooled(study, cohorts, run.first_model), cohorts)
    return found


def pooled(study: StudyFile, cohorts: Mapping[SiteId, Cohort], first: GlobalModel) -> GlobalModel:
    """All training records in one place, for as many passes in batches of the same size."""
    plain = plain_spec_of(study, declared_patients=study.data.minimum_patients)
    sites = len(cohorts)
    spec = replace(
        plain,
        local_steps=study.training.rounds * plain.local_steps * sites,
        batch_part=plain.batch_part / sites,
    )
    trainer = PlainTrainer(spec, joined([one.train for one in cohorts.values()]))
    return GlobalModel(first.parameters, first.vector + trainer.train_round(first.vector).update.astype(np.float32))


def figure(run: "simulation._Run", model: GlobalModel, cohorts: Mapping[SiteId, Cohort]) -> float:
    """Dice of masks, accuracy of other labels."""
    quality = run.quality(model, cohorts)
    value = quality.dice if quality.dice is not None else quality.accuracy
    assert value is not None  # every study measures one of them
    return value


if __name__ == "__main__":
    main()
