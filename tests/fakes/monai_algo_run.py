"""MONAI's own `MonaiAlgo` beside our trainer, in a process of its own: `python -m tests.fakes.monai_algo_run FOLDER`.

pytorch-ignite's modules warn while they are imported, which this project's tests take for errors. Prints the largest
difference between the updates of two rounds, and the largest value of one.
"""

import json
import sys
from pathlib import Path

import numpy as np

from site_agent.client_algo import ClientAlgoTrainer
from site_agent.client_algo_file import made_client_algo
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.site_file import ClientAlgoFile
from site_agent.training_spec import plain_spec_of
from site_agent.update import vector_of
from tests.fakes.client_algos import registered, study_with_client_algo
from tests.fakes.training import patients

PATIENTS = 12
SOURCE = """\
from monai.fl.client import MonaiAlgo


class OurBundle(MonaiAlgo):
    def __init__(self, bundle_root, local_epochs):
        super().__init__(bundle_root=bundle_root, local_epochs=local_epochs, config_evaluate_filename=None)
"""
TRAIN = {
    "imports": ["$import torch", "$import numpy as np"],
    "device": "$torch.device('cpu')",
    "network_def": "$torch.nn.Sequential(torch.nn.Linear(3, 1))",
    "table": "$np.load(@bundle_root + '/table.npy')",
    "records": "$[{'image': torch.tensor(row[:3]), 'label': torch.tensor(row[3:])} for row in @table]",
    "train": {
        "loader": {"_target_": "DataLoader", "dataset": "@records", "batch_size": PATIENTS},
        "optimizer": "$torch.optim.SGD(@network_def.parameters(), lr=0.5)",
        "trainer": {
            "_target_": "SupervisedTrainer",
            "device": "@device",
            "max_epochs": 1,
            "train_data_loader": "@train#loader",
            "network": "@network_def",
            "optimizer": "@train#optimizer",
            "loss_function": "$torch.nn.BCEWithLogitsLoss()",
        },
    },
    "initialize": "$print()",
    "run": "$@train#trainer.run()",
    "finalize": "$print()",
}


def main(folder: Path) -> tuple[float, float]:
    """Two rounds of two epochs of gradient descent: by a bundle through `MonaiAlgo`, and by `PlainTrainer`."""
    study = study_with_client_algo(
        optimizer={"name": "sgd", "learning_rate": 0.5, "momentum": 0.0}, sampling_rate=1.0, local_steps=2
    )
    spec = plain_spec_of(study, declared_patients=PATIENTS)
    train = patients(PATIENTS, inputs=3)
    bundle = folder / "bundle"
    (bundle / "configs").mkdir(parents=True)
    np.save(bundle / "table.npy", np.column_stack([train.features, train.labels]))
    (bundle / "configs/train.json").write_text(json.dumps(TRAIN | {"bundle_root": str(bundle)}))
    entry = registered(folder, SOURCE, kind="OurBundle", bundle_root="bundle", local_epochs=2)
    algo = made_client_algo(ClientAlgoFile.model_validate(entry))
    theirs = ClientAlgoTrainer(algo, spec, train, site="birch", folder=folder)
    ours = PlainTrainer(spec, train)
    model, difference, largest = vector_of(build_from(spec.network)), 0.0, 0.0
    for _ in range(2):
        update = theirs.train_round(model).update
        difference = max(difference, float(np.abs(update - ours.train_round(model).update).max()))
        largest = max(largest, float(np.abs(update).max()))
        model = (model + update).astype(np.float32)
    theirs.finalize()
    return difference, largest


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(Path(sys.argv[1]))) + "\n")
