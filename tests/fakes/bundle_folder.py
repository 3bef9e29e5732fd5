"""A benign bundle in the shape of MONAI's model zoo, and hostile ones made from it by changing one thing.

Written for these tests; its values are not of any published model.
"""

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

METADATA: dict[str, Any] = {
    "version": "0.1.0",
    "name": "organ_ct_segmentation",
    "monai_version": "1.5.0",
    "task": "segmentation of one organ in CT",
    "description": "Made for tests",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "num_channels": 1, "spatial_shape": [32, 32, 32]}},
        "outputs": {"pred": {"type": "image", "num_channels": 2, "spatial_shape": [32, 32, 32]}},
    },
}

_BOTH = ["image", "label"]

TRAIN: dict[str, Any] = {
    "imports": ["$import glob", "$import os", "$import ignite"],
    "bundle_root": ".",
    "ckpt_dir": "$@bundle_root + '/models'",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": "/data/organ",
    "images": "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
    "labels": "$list(sorted(glob.glob(@dataset_dir + '/labelsTr/*.nii.gz')))",
    "epochs": 20,
    "width": 8,
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": "$[@width * 2**i for i in range(3)]",
        "strides": [2, 2],
        "num_res_units": 1,
        "norm": ["GROUP", {"num_groups": 2}],
        "_desc_": "three levels",
    },
    "network": "$@network_def.to(@device)",
    "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True, "squared_pred": True},
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 1e-4},
    "lr_scheduler": {
        "_target_": "torch.optim.lr_scheduler.StepLR",
        "optimizer": "@optimizer",
        "step_size": "$@epochs // 2",
        "gamma": 0.1,
    },
    "train": {
        "deterministic_transforms": [
            {"_target_": "LoadImaged", "keys": _BOTH},
            {"_target_": "EnsureChannelFirstd", "keys": _BOTH, "channel_dim": "no_channel"},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": -57,
                "a_max": 164,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            {"_target_": "EnsureTyped", "keys": _BOTH, "dtype": "$torch.float32"},
        ],
        "random_transforms": [
            {
                "_target_": "RandCropByPosNegLabeld",
                "keys": _BOTH,
                "label_key": "label",
                "spatial_size": [16, 16, 16],
                "num_samples": 1,
            },
            {"_target_": "RandFlipd", "keys": _BOTH, "prob": 0.5, "spatial_axis": 0},
        ],
        "preprocessing": {
            "_target_": "Compose",
            "transforms": "$@train#deterministic_transforms + @train#random_transforms",
        },
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], @labels[:-9])]",
            "transform": "@train#preprocessing",
            "cache_rate": 1.0,
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2, "shuffle": True},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False], "to_onehot": 2},
            ],
        },
        "handlers": [
            {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 1},
            {
                "_target_": "StatsHandler",
                "tag_name": "train_loss",
                "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
            },
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": "@epochs",
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": "@loss",
            "optimizer": "@optimizer",
            "train_handlers": "@train#handlers",
        },
    },
    "validate": {
        "preprocessing": {"_target_": "Compose", "transforms": "%train#deterministic_transforms"},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [16, 16, 16],
            "sw_batch_size": 2,
            "overlap": 0.25,
            "device": "$torch.device('cpu')",
        },
        "postprocessing": "%train#postprocessing",
        "handlers": [
            {"_target_": "StatsHandler", "iteration_log": False},
            {"_target_": "CheckpointSaver", "save_dir": "@ckpt_dir", "save_dict": {"model": "@network"}},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "network": "@network",
            "inferer": "@validate#inferer",
            "val_handlers": "@validate#handlers",
        },
    },
    "initialize": ["$monai.utils.set_determinism(seed=123)", "$setattr(torch.backends.cudnn, 'benchmark', True)"],
    "run": ["$@train#trainer.run()"],
}

LOGGING = """[loggers]
keys=root
[handlers]
keys=h
[handler_h]
class=__import__('os').system('false') or logging.NullHandler
args=()
"""


def changed(at: str, value: Any) -> dict[str, Any]:
    """The training configuration with one place changed, by its id."""
    config = copy.deepcopy(TRAIN)
    *outer, last = at.split("#")
    inside: Any = config
    for part in outer:
        inside = inside[int(part)] if isinstance(inside, list) else inside[part]
    if isinstance(inside, list) and int(last) == len(inside):
        inside.append(value)
    else:
        inside[int(last) if isinstance(inside, list) else last] = value
    return config


def write_bundle(root: Path, train: Any = TRAIN, *, metadata: Any = METADATA) -> Path:
    """A bundle's folder; `train` is a configuration, or the bytes of its file."""
    (root / "configs").mkdir(parents=True)
    (root / "docs").mkdir()
    raw = train if isinstance(train, bytes) else json.dumps(train, indent=4).encode()
    (root / "configs" / "train.json").write_bytes(raw)
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=4))
    (root / "configs" / "logging.conf").write_text(LOGGING)
    (root / "docs" / "README.md").write_text("# A bundle for tests\n")
    (root / "LICENSE").write_text("Apache-2.0\n")
    return root


def pack(folder: Path, archive: Path, *, inside: str = "") -> Path:
    """A zip file of a bundle's folder, with the name of a folder in front if one is wanted."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                made.write(path, f"{inside}{path.relative_to(folder)}")
    return archive
