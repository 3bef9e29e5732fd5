"""Whether a study's bundle is the one this hospital looked at and keeps."""

from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from consortium.contract.networks import BundleClassifier, BundlePart, BundleSegmenter
from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData
from site_agent.bundles.checking import Bundle, check_bundle
from site_agent.bundles.definition import definition_of
from site_agent.bundles.reading import read_bundle
from site_agent.bundles.refusals import BundleRefused, Finding
from site_agent.bundles.study_loss import StudyLoss, study_loss_of
from site_agent.bundles.study_views import views_of
from site_agent.policy import Refuse

NOT_APPROVED = Refuse("bundles", "this hospital has not approved this bundle")
NOT_THE_SAME = Refuse("bundles", "the network in the study is not that of the bundle")
NOT_FOLLOWED = Refuse("bundles", "the study follows the bundle in what the bundle says otherwise")


def objection_to_bundle(study: StudyFile, bundles: Mapping[str, str]) -> Refuse | None:
    """Why the study's bundle is not taken here; None if it is, or if the study has none.

    The hospital's copy is read again: its bytes must have the digest that site.yaml and the study name, nothing in it
    may be refused, its network must be the one the study carries, and so must whatever else the study says it follows.

    Args:
        study: The study.
        bundles: The site file's `bundles`: digest -> path of the copy.
    """
    if not isinstance(study.model, BundleClassifier | BundleSegmenter):
        return None
    args = study.model.args
    path = bundles.get(args.digest)
    if path is None:
        return NOT_APPROVED
    try:
        bundle = bundle_at(args.digest, Path(path))
    except BundleRefused:
        return NOT_APPROVED  # what is wrong with the copy is for `site-agent check`, not for the other side
    if definition_of(bundle.network) != args.definition:
        return NOT_THE_SAME
    return None if all(_is_followed(part, study, bundle) for part in args.follows or ()) else NOT_FOLLOWED


def _is_followed(part: BundlePart, study: StudyFile, bundle: Bundle) -> bool:
    """Whether the study says of one part what the bundle does, as far as a study can say it."""
    match part:
        case "loss":
            loss = None if bundle.loss is None else study_loss_of(bundle.loss)
            return isinstance(loss, StudyLoss) and loss.name == study.training.loss
        case "augmentation":
            augmentation = study.data.augmentation if isinstance(study.data, ImagingData) else None
            return views_of(bundle).augmentation == (augmentation or ())
        case "patch":
            return views_of(bundle).patch == study.data.patch
        case _:
            assert_never(part)


def bundle_at(digest: str, path: Path) -> Bundle:
    """The bundle at a path, if it is the one of that digest.

    Raises:
        BundleRefused: It is another one, or something in it is refused.
    """
    files = read_bundle(path)
    if files.digest != digest:
        advice = "Put the bundle back that was looked at, or look at this one: site-agent bundle check."
        finding = Finding(
            file="", found=f"the digest {files.digest}", allowed=f"{digest}, as under bundles", advice=advice
        )
        raise BundleRefused([finding])
    return check_bundle(files)
