"""A study whose network a MONAI bundle defines, at a real agent: declined without a copy of it, trained with one."""

import json
from pathlib import Path
from typing import Any

import yaml

from consortium.contract.messages import StudyPrepared
from site_agent.bundles.report import look_at
from site_agent.description import describe
from site_agent.networks import layout_of
from site_agent.training_spec import network_spec_of
from tests.fakes.bundle_folder import changed, pack, write_bundle
from tests.fakes.site_world import ME, hospital
from tests.integration.test_imaging_training import MASKS, study_of, write_masked

UNET = {
    "_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2,
    "channels": "$[@width, 2 * @width]", "strides": [2], "num_res_units": 1, "norm": "batch",
}  # fmt: skip


async def test_the_agent_trains_a_bundles_network_that_the_hospital_keeps(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", changed("network_def", UNET) | {"width": 4})
    model: Any = look_at(folder).model
    study = study_of(MASKS, model=json.loads(json.dumps(model)), loss="dice-cross-entropy", rounds=2)
    digest = model["args"]["digest"]
    assert study.model.network == "bundle-segmenter"

    def configure(**sections: Any) -> None:
        record = yaml.safe_load((tmp_path / "site.yaml").read_text())
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(record | sections))

    async with hospital(tmp_path, study, ready=False) as world:
        write_masked(tmp_path, study)
        (tmp_path / ME).rename(tmp_path / "ward")
        record = yaml.safe_load((tmp_path / "site.yaml").read_text())
        record["datasets"]["ward"] = yaml.safe_load((tmp_path / "ward/site.yaml").read_text())["datasets"]["pictures"]
        record["datasets"]["ward"] |= {"path": "ward/files", "table": "ward/list.csv"}
        rules = {"max_epsilon_total": 20.0, "max_epsilon_per_study": 10.0, "allowed_networks": ["bundle-segmenter"]}
        configure(datasets=record["datasets"], policy=record["policy"] | rules)
        refused = await world.prepare()
        assert not isinstance(refused, StudyPrepared)
        assert "this hospital has not approved this bundle" in str(refused)
        said = describe(study, world.digest, world.home.config, world.ledger)
        assert " ".join(said.split()).count("has not approved this bundle") == 1

        pack(folder, tmp_path / "kept.zip")
        configure(bundles={digest: "kept.zip"})
        assert isinstance(await world.prepare(), StudyPrepared)
        assert world.model.parameters == layout_of(network_spec_of(study))
        said = describe(study, world.digest, world.home.config, world.ledger)
        assert digest in said
        assert "[4, 8]" in said
        before, outcome = world.model, await world.attempt()
        assert outcome.closed
        assert not (world.model.vector == before.vector).all()
