"""C-03: a hospital asks for another's masked update by the digest it saw in the survivor proposal.

Held twice, so that no row of `mutations.py` can show it: masked updates lie in a store that no kind of download reads,
and what is handed out is looked up among the models and aggregates of the hospital's own studies.
"""

import asyncio
from pathlib import Path

import pytest

from consortium.contract.messages import VectorKind
from consortium.contract.names import Digest
from consortium.training_round import Phase
from consortium.wire.errors import CallRefused, RefusalCode
from privacy.secagg.messages import SurvivorProposal
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, small_study


async def test_masked_updates_are_never_handed_out(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        curious = sites[SITES[0]]
        curious.silent[1, 1] = Phase.CONFIRMING
        await world.command("study.start", study=study.id)
        await world.until(lambda: bool(curious.told(SurvivorProposal)))
        (proposal,) = curious.told(SurvivorProposal)
        digests = [Digest(header.masked_update_hash.hex()) for header in proposal.headers]
        for digest in digests:  # as if they still lay there, and it knows their names
            await asyncio.to_thread(world.home.rooms.uploads.put, b"a masked update", name=digest)
        async with world.connect(curious.hospital) as client:
            for digest in digests:
                for kind in (VectorKind.AGGREGATE, VectorKind.GLOBAL_MODEL):
                    with pytest.raises(CallRefused) as caught:
                        await client.download_vector(kind, digest, 10_000, bytes)
                    assert caught.value.code is RefusalCode.NOT_FOUND
