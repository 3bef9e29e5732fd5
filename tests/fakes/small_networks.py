"""Every network for images that a study may name, as small as its arguments allow, and records for it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from consortium.contract.catalogue import LossName
from site_agent.cohort import Records
from site_agent.training_spec import NetworkSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallNetwork:
    """A name of the allow-list with arguments, and the sides of an image it takes."""

    name: str
    args: Mapping[str, object]
    sides: tuple[int, ...]
    masks: bool = False  # its label is a mask

    def spec(self, *, outputs: int = 3, channels: int = 1, seed: int = 1) -> NetworkSpec:
        """The network on these images, with the loss that fits its labels."""
        loss: LossName = "dice-cross-entropy" if self.masks else "cross-entropy"
        return NetworkSpec(
            network=self.name,
            args=self.args,
            input_shape=(channels, *self.sides),
            outputs=outputs,
            label_shape=self.sides if self.masks else (),
            loss="binary-cross-entropy" if outputs == 1 else loss,
            seed=seed,
        )


def images(spec: NetworkSpec, patients: int, *, seed: int = 7) -> Records:
    """One made-up image for each patient, with a label or a mask."""
    random = np.random.default_rng(seed)
    labels = random.integers(max(2, spec.outputs), size=(patients, *spec.label_shape))
    features = random.normal(size=(patients, *spec.input_shape))
    features += labels.reshape(patients, 1, *(spec.label_shape or (1,) * (len(spec.input_shape) - 1)))
    return Records(
        features=features.astype(np.float32),
        labels=labels.astype(np.float32),
        patients=np.arange(patients, dtype=np.int64),
        patient_count=patients,
    )


_SWIN = {"feature_size": 12, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "window": 2}
_UNETR = {"feature_size": 2, "hidden_size": 8, "mlp_size": 8, "heads": 2}
_VIT = {"patch_size": 8, "hidden_size": 8, "mlp_size": 8, "layers": 2, "heads": 2}
_DENSE = {"init_features": 4, "growth_rate": 2}
_SEG = {"width": 2, "blocks_down": (1, 1), "blocks_up": (1,)}
_BASIC = {"channels": (2, 2, 2, 2, 2, 2)}

SMALL_NETWORKS: Mapping[str, SmallNetwork] = {
    f"{one.name} {len(one.sides)}-D": one
    for one in (
        SmallNetwork(name="cnn", args={}, sides=(28, 28)),
        SmallNetwork(name="scattering", args={"orientations": 2}, sides=(16, 20)),
        SmallNetwork(name="densenet121", args=_DENSE, sides=(32, 32)),
        SmallNetwork(name="densenet121", args=_DENSE, sides=(32, 32, 32)),
        SmallNetwork(name="resnet", args={"depth": 50, "width": 2}, sides=(16, 24)),
        SmallNetwork(name="resnet", args={"depth": 10, "width": 2, "small_images": True}, sides=(8, 8, 8)),
        SmallNetwork(name="efficientnet", args={"size": "b0"}, sides=(32, 32)),
        SmallNetwork(name="vit", args=_VIT, sides=(16, 24)),
        SmallNetwork(name="vit", args=_VIT, sides=(8, 8, 8)),
        SmallNetwork(name="unet", args={"channels": (3, 5)}, sides=(16, 8), masks=True),
        SmallNetwork(name="unet", args={"channels": (3, 5), "res_units": 0}, sides=(8, 8, 8), masks=True),
        SmallNetwork(name="dynunet", args={"channels": (2, 4, 4), "residual": True}, sides=(16, 8), masks=True),
        SmallNetwork(name="dynunet", args={"channels": (2, 4, 4)}, sides=(8, 8, 8), masks=True),
        SmallNetwork(name="segresnet", args=_SEG, sides=(16, 8), masks=True),
        SmallNetwork(name="segresnet", args=_SEG, sides=(8, 8, 8), masks=True),
        SmallNetwork(name="attention-unet", args={"channels": (2, 4)}, sides=(16, 8), masks=True),
        SmallNetwork(name="attention-unet", args={"channels": (2, 4)}, sides=(8, 8, 8), masks=True),
        SmallNetwork(name="basic-unet", args=_BASIC, sides=(32, 16), masks=True),
        SmallNetwork(name="basic-unet", args=_BASIC, sides=(16, 16, 16), masks=True),
        SmallNetwork(name="swin-unetr", args=_SWIN, sides=(32, 32), masks=True),
        SmallNetwork(name="unetr", args=_UNETR, sides=(32, 16), masks=True),
        SmallNetwork(name="unetr", args=_UNETR, sides=(16, 16, 16), masks=True),
    )
}
"""By name and axes; the two largest in two dimensions only."""
