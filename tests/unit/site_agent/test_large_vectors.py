"""What a large model asks of an agent: heavy work beside the loop, vectors on disk, nothing left behind."""

import threading

import numpy as np
import pytest

from consortium.contract.global_model import GlobalModel
from consortium.contract.messages import ResultVerified, SendInitialModel, VectorKind
from consortium.contract.names import Digest
from site_agent import study_work
from tests.fakes.site_world import MemoryLine, endorsement, hospital, keys

EVERY_PHASE = ["KeyBundle", "SealedShares", "UploadHeader", "Confirmation", "UnmaskShares", "ResultVerified"]


async def test_whatever_touches_every_value_is_done_beside_the_loop(tmp_path, monkeypatch):
    """Deleting an `asyncio.to_thread` of study_work.py makes it fail."""
    where: dict[str, set[int]] = {}

    def noted(name, function):
        def call(*arguments, **options):
            where.setdefault(name, set()).add(threading.get_ident())
            return function(*arguments, **options)

        return call

    for name in ("encode_and_mask", "decode", "next_global_model", "mapped"):
        monkeypatch.setattr(study_work, name, noted(name, getattr(study_work, name)))
    monkeypatch.setattr(GlobalModel, "open", staticmethod(noted("open", GlobalModel.open)))
    async with hospital(tmp_path) as world:
        assert (await world.attempt()).said_kinds() == EVERY_PHASE
        first = world.work._prepared.first_model.digest()
        await world.tell(SendInitialModel(study_digest=world.digest, model_digest=first))
        await world.idle()
    assert where.keys() == {"encode_and_mask", "decode", "next_global_model", "mapped", "open"}
    assert not any(threading.get_ident() in threads for threads in where.values())


async def test_a_downloaded_vector_has_no_name_in_the_folder(tmp_path, monkeypatch):
    """Whatever happens while it is there, nothing of it can be left behind."""
    seen = []
    download = MemoryLine.download

    async def watched(self, kind, digest, limit_bytes, into):
        async def watched_into(chunk):
            await into(chunk[:1])
            seen.append(names(tmp_path))
            await into(chunk[1:])

        await download(self, kind, digest, limit_bytes, watched_into)

    monkeypatch.setattr(MemoryLine, "download", watched)
    async with hospital(tmp_path) as world:
        before = names(tmp_path)
        assert isinstance((await world.attempt()).said[-1], ResultVerified)
        figures = {"results/small-study.clipping.json", "progress/small-study.json"}
        assert [found - figures for found in map(set, seen)] == [set(before)]


def names(folder):
    """Every file that could hold a vector."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.match("*.db*")
    )


async def test_a_model_of_the_folder_is_looked_at_where_it_lies(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        model = world.work._models.find(world.model.digest())
        assert not model.vector.flags.owndata
        assert not world.work._prepared.first_model.vector.flags.owndata
        assert model.vector.tolist() == world.model.vector.tolist()


@pytest.mark.parametrize("cut", [0, 1, -1])
async def test_a_model_of_another_length_from_the_coordinator_is_not_kept(tmp_path, cut):
    async with hospital(tmp_path) as world:
        missed = await world.attempt(result=False)
        world.go_on(missed)
        world.work.session_ended()
        digest = world.model.digest()
        world.line.vectors[digest] = world.line.vectors[digest][:cut] if cut >= 0 else world.line.vectors[digest] + b"x"
        signed = tuple(endorsement(keys().members[name], missed.plan, digest) for name in ("alder", "cedar", "dogwood"))
        await world.attempt(endorsements=signed)
        assert (VectorKind.GLOBAL_MODEL, digest) in world.line.downloads
        assert not (tmp_path / "models" / f"{digest}.safetensors").exists()
        assert world.line.refusals()


async def test_the_first_model_is_uploaded_from_its_file(tmp_path):
    async with hospital(tmp_path) as world:
        digest = world.model.digest()
        await world.tell(SendInitialModel(study_digest=world.digest, model_digest=digest))
        await world.idle()
        ((header, data),) = world.line.uploads
        assert data == (tmp_path / "models" / f"{digest}.safetensors").read_bytes()
        assert (header.size_bytes, Digest(GlobalModel.from_safetensors(data).digest())) == (len(data), digest)
        assert np.array_equal(GlobalModel.from_safetensors(data).vector, world.model.vector)
