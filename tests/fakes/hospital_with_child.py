"""A hospital in a process of its own, with a training child, as `site-agent run` has it: `... FOLDER`, for tests.

It prints what it finds as one line of JSON, and then waits to be killed.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from privacy.secagg.coordinator import Done
from site_agent.progress import standings
from site_agent.training_child.child_process import ChildProcess
from site_agent.training_room import Order
from tests.fakes import site_world
from tests.fakes.site_world import ME, World, hospital, small_study

STUDY = small_study(training={"rounds": 3})
HEAVY = ("monai", "opacus", "pandas", "torch")


async def main(folder: Path) -> None:
    """A round, the death of the child, another round."""
    rooms: list[ChildProcess] = []
    site_world.WAIT_S = 240.0  # two children load torch, on a machine that may be busy

    def room_of(order: Order) -> ChildProcess:
        rooms.append(ChildProcess(order))
        return rooms[-1]

    async with hospital(folder, STUDY, rooms=room_of) as world:
        took_part = [await _takes_part(world)]
        child = rooms[0].pid
        assert child is not None
        found = about(child)
        os.kill(child, signal.SIGSEGV)
        while rooms[0].lost is None:  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)
        took_part.append(await _takes_part(world))
        found |= {
            "took_part": took_part,
            "rounds": world.ledger.report()[0].rounds,
            "followed": [one.study for one in standings(folder)],
            "children": [room.pid for room in rooms],
            "heavy": [name for name in HEAVY if name in sys.modules],
        }
        print(json.dumps(found), flush=True)
        await asyncio.Event().wait()


async def _takes_part(world: World) -> bool:
    outcome = await world.attempt()
    return isinstance(outcome.state, Done) and ME in outcome.state.survivors


def about(child: int) -> dict[str, Any]:
    """What the system knows of a process: its open files, its variables, its command."""
    facts = Path(f"/proc/{child}")
    return {
        "open": sorted(str(path.readlink()) for path in (facts / "fd").iterdir()),
        "environment": (facts / "environ").read_text().split("\0"),
        "command": (facts / "cmdline").read_text().split("\0"),
    }


if __name__ == "__main__":
    os.environ["https_proxy"] = "http://user:SECRET@proxy.example:3128"
    os.environ["NOTIFY_SOCKET"] = "/run/SECRET"
    asyncio.run(main(Path(sys.argv[1])))
