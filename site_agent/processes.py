"""The agent in one process, or in several that torchrun started: who is the agent, and who helps. No torch here."""

import os
import signal
from collections.abc import Callable


def started_by_torchrun() -> bool:
    """Whether this process is one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def alone_or_together(agent: Callable[[], None]) -> None:
    """Be the agent; or, as one of several processes, be it as rank 0 and a helper of rank 0 otherwise.

    A helper does not hear signals: it leaves when the agent has, which dismisses it or is gone.

    Raises:
        TrainingFailed: The processes do not meet, or the agent of this helper is gone.
    """
    if not started_by_torchrun():
        agent()
        return
    from site_agent.gradients import ddp  # noqa: PLC0415 - torch

    if ddp.join() != ddp.AGENT:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        ddp.serve()
        return
    try:
        agent()
    finally:
        ddp.dismiss()
