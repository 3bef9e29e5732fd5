"""Pictures of test slices with the true and the predicted mask, for the hospital's own eyes.

They are patients' images. They are drawn only when somebody at the hospital asks (`site-agent overlays`), written under
the agent's home, where no other user may look, and sent nowhere; the agent itself never draws any. Files are numbered,
so that no name says whose image it is.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from consortium.contract.global_model import GlobalModel
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from consortium.contract.study_data import MASK
from site_agent.carried import Carried
from site_agent.cohort import Records, read_cohort
from site_agent.device import PROCESSOR, compute_for
from site_agent.errors import SiteError
from site_agent.evaluate import windows_at_once
from site_agent.home import AgentHome
from site_agent.imaging.patches import whole_answers
from site_agent.left_out import withdrawn_at
from site_agent.model_folder import ModelFolder
from site_agent.networks import build_from
from site_agent.overlay_picture import side_by_side, slice_shown
from site_agent.store import Store
from site_agent.training_spec import NO_FILES, WeightFiles, network_spec_of
from site_agent.update import load_kept, load_vector

FOLDER = "overlays"


class NoOverlays(SiteError):
    """There is nothing to draw."""

    def advice(self) -> str:
        """What to do next."""
        return (
            "Overlays are drawn of studies whose labels are masks, once a round of the study has been closed here. "
            "`site-agent status` shows how far it has come."
        )


def draw_overlays(home: AgentHome, store: Store, study: StudyFile, digest: Digest, count: int) -> tuple[Path, ...]:
    """Draw some test patients' images, one of each patient, with the last global model this hospital knows.

    Pictures of the study that were drawn before are replaced.

    Args:
        home: The agent's.
        store: The agent's.
        study: A study this hospital decided about.
        digest: Of that study.
        count: How many patients, at most.

    Raises:
        NoOverlays: The study's labels are not masks, or there is no model or no dataset yet.
        DataInvalid, DeviceMissing: See `read_cohort` and `compute_for`.
    """
    if study.data.label.type != MASK:
        raise NoOverlays(f"the labels of {study.id} are of type {study.data.label.type}, not masks")
    dataset = home.config.dataset_for(study.study_id)
    if dataset is None:
        raise NoOverlays(f"site.yaml names no dataset for {study.id}")
    link = store.chain(digest)
    model = None if link is None else ModelFolder(home.folder / "models").find(link.model_digest)
    if link is None or model is None:
        raise NoOverlays(f"there is no global model of {study.id} here yet")
    kept = Carried(
        study, home.folder / "carried" / digest[:16], model=model, was_released=lambda _: False
    ).kept(link.round + 1)  # fmt: skip
    test = read_cohort(study, dataset, home.images, withdrawn_at(home, store)).test
    compute = compute_for(home.config.device, home.config.precision)
    folder = home.folder / FOLDER / study.id
    for part in (folder.parent, folder):
        part.mkdir(mode=0o700, exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9].png"):
        old.unlink()
    drawn = pictures(study, model, kept, test, count, device=compute.device, weights=home.config.weights)
    return tuple(_saved(picture, folder / f"{number:03}.png") for number, picture in enumerate(drawn, start=1))


def pictures(
    study: StudyFile,
    model: GlobalModel,
    kept: NDArray[np.float32] | None,
    test: Records,
    count: int,
    *,
    device: torch.device = PROCESSOR,
    weights: WeightFiles = NO_FILES,
) -> tuple[NDArray[np.uint8], ...]:
    """One picture of each of at most `count` patients, spread evenly over the test patients; see `side_by_side`."""
    module = build_from(network_spec_of(study, weights)).to(device)
    if kept is not None:
        load_kept(module, kept)
    load_vector(module, model.vector)
    module.eval()
    _, first = np.unique(test.patients, return_index=True)
    chosen = first[np.linspace(0, len(first) - 1, min(count, len(first))).round().astype(np.int64)]
    drawn, patch = [], study.data.patch
    windows = 1
    if patch is not None:
        windows = windows_at_once(patch, channels=test.features.shape[1], outputs=study.data.outputs)
    for row in chosen:
        record = torch.tensor(np.asarray(test.features[row : row + 1]), dtype=torch.float32, device=device)
        with torch.inference_mode():
            answers = whole_answers(module, record, patch, windows_at_once=windows)
            predicted = torch.nan_to_num(answers).argmax(dim=1)[0].cpu().numpy()
        truth = np.asarray(test.labels[row]).astype(np.int64)
        drawn.append(_picture(record[0, 0].cpu().numpy(), truth, predicted))
    return tuple(drawn)


def _picture(image: NDArray[np.float32], truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.uint8]:
    if image.ndim == 2:
        return side_by_side(image, truth, predicted)
    # Axes point to the right, to the front and upwards; a picture has its first row at the front.
    place = slice_shown(truth if (truth > 0).any() else predicted)
    return side_by_side(
        image[:, :, place].T[::-1], truth[:, :, place].T[::-1], predicted[:, :, place].T[::-1]
    )  # fmt: skip


def _saved(picture: NDArray[np.uint8], path: Path) -> Path:
    Image.fromarray(picture).save(path, format="PNG")
    path.chmod(0o600)
    return path
