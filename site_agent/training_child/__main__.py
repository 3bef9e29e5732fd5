"""The training child: `python -I -m site_agent.training_child FD`, started by an agent and by nobody else.

First of all it gives up what it does not need (`sandbox.py`), before numpy, torch or any patient's data are loaded.
"""

import faulthandler
import socket
import sys
from pathlib import Path

from site_agent.sandbox import Confinement, confine
from site_agent.training_child.frames import FrameRefused
from site_agent.training_child.pipe import Pipe, PipeClosed


def main() -> int:
    """Serve until the agent is gone."""
    faulthandler.enable()  # of a crash in a library it says where: files and lines, no values
    pipe = Pipe(socket.socket(fileno=int(sys.argv[1])))
    try:
        start = pipe.receive_head(body_max=0)
        asked = start.fields
        confined = confine(
            Confinement(
                readable=tuple(map(Path, asked["readable"])),
                writable=tuple(map(Path, asked["writable"])),
                memory_bytes=asked["memory_bytes"],
                gpu=asked["gpu"],
                parent=asked["parent"],
            )
        )
        opened = pipe.receive_head(body_max=2**24)
        document = bytearray(opened.body_bytes)
        pipe.receive_into(memoryview(document))
    except (PipeClosed, FrameRefused):
        return 0

    from site_agent.training_child.orders import order_of  # noqa: PLC0415 - only when confined
    from site_agent.training_child.serving import Speaker, serve  # noqa: PLC0415 - torch, and only when confined

    speaker = Speaker(pipe)
    missing = "; ".join(rule.name for rule in confined.missing)
    outcome, level = ("in part", "warning") if missing else ("whole", "info")
    fields = {"outcome": outcome, "reason": f"not enforced: {missing}"[:300] if missing else None}
    try:
        speaker.answer("fact", {"event": "training.confined", "level": level, "fields": fields})
        serve(pipe, speaker, order_of(opened.fields, bytes(document)))
    except PipeClosed:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
