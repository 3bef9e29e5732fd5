"""C-05: a hospital sends a small masked update of another length than the plan's, or under another hospital's header.

Held by: `Coordinator._hear_update`; without its comparison of lengths the first test fails (row c05 of `mutations.py`).
A header of another hospital is refused twice, by the wire and by the round's machine: the second test holds while
either of them stands.
"""

import asyncio
from pathlib import Path

import numpy as np

from consortium.contract.messages import MaskedUpdate
from privacy.secagg.messages import UploadHeader
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, small_study

AMBER, BIRCH, CEDAR, DELTA = SITES
OTHERS = [BIRCH, CEDAR, DELTA]


async def test_a_vector_of_another_length_costs_its_sender_the_round(tmp_path: Path) -> None:
    study = small_study(rounds=1, round_deadline_s=2.0, upload_deadline_s=2.0)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for site in sites.values():
            site.fast = True
        mask = sites[AMBER]._mask
        sites[AMBER]._mask = lambda machine: np.append(mask(machine), np.uint32(0))  # type: ignore[method-assign]
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.history(study) != [])
        assert world.history(study)[0]["survivors"] == OTHERS


async def test_another_hospitals_header_takes_nobody_elses_place(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for site in sites.values():
            site.fast = True
        signed: asyncio.Future[UploadHeader] = asyncio.get_running_loop().create_future()
        send = sites[BIRCH].upload_update

        async def after_the_copy(upload: UploadHeader) -> None:
            if not signed.done():  # in the first round
                signed.set_result(upload)
                await asyncio.sleep(0.2)
            await send(upload)

        async def copied(_: UploadHeader) -> None:
            upload = await signed
            assert sites[BIRCH].masked is not None
            values = sites[BIRCH].masked.tobytes()
            await sites[AMBER]._send(MaskedUpdate(study_digest=study.digest(), upload=upload, values=values))

        sites[BIRCH].upload_update = after_the_copy  # type: ignore[assignment, method-assign]
        sites[AMBER].upload_update = copied  # type: ignore[assignment, method-assign]
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.history(study) != [])
        assert world.history(study)[0]["survivors"] == OTHERS
        assert (1, 1, AMBER, "collecting") in world.dropouts()
