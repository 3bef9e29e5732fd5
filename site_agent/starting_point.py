"""What a study begins from, as this hospital sees it: whether the file is listed here, and in words (no torch)."""

import hashlib
from pathlib import Path

from consortium.contract.study import StudyFile
from site_agent.errors import WeightsRefused
from site_agent.policy import Refuse
from site_agent.training_spec import WeightFiles

NO_WEIGHTS = Refuse("weights", "this hospital does not have the initial weights that the study names")


def objection_to_weights(study: StudyFile, weights: WeightFiles) -> Refuse | None:
    """Why a study cannot begin here; None if it can. Its file is read where the network is built."""
    named = study.initial_weights
    return None if named is None or named.sha256 in weights else NO_WEIGHTS


def words_of(study: StudyFile, weights: WeightFiles) -> tuple[tuple[str, str], ...]:
    """For a steward: what training begins from and what of the network is trained, where the study says so."""
    words = []
    named, adapter = study.initial_weights, study.adapter
    if named is not None:
        copy = weights.get(named.sha256)
        known = "site.yaml does not list it, so it is refused" if copy is None else f"this hospital's copy is {copy}"
        rest = "; parameters that it lacks are drawn from the seed" if named.missing else ""
        begins = f"the file of weights with the SHA-256 {named.sha256} ({known}){rest}."
        words.append(("Begins from", f"{begins} What they learned before, and from whom, is in no epsilon here."))
    if adapter is not None:
        also = f", and {', '.join(study.training.trainable)}" if study.training.trainable else ""
        trained = f"an adapter of rank {adapter.rank} beside the layers {', '.join(adapter.targets)}{also}"
        words.append(("Trained", f"{trained}; the rest of the network stays as it is, and does not leave."))
    return tuple(words)


def require_named_file(sha256: str, path: Path) -> None:
    """Hold a file of weights to the digest that site.yaml lists it under; raises WeightsRefused."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsRefused(
            f"a file that cannot be read ({error.strerror or type(error).__name__})", f"the one listed as {sha256[:12]}"
        ) from None
    if found != sha256:
        raise WeightsRefused(f"a file with the SHA-256 {found[:12]}", f"{sha256[:12]}, as it is listed in site.yaml")
