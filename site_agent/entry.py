"""The program `site-agent`: every command is in `cli.py`, and `site-agent run` starts without it.

An agent runs for months, and what only its command line needs would be in memory all the while
(`consortium/contract/light_start.py`).
"""

import asyncio
import sys
from pathlib import Path

from consortium.contract.light_start import load_structlog_alone, plain_line
from consortium.contract.private_process import keep_memory_private


def main() -> None:
    """The console script."""
    line = plain_line(sys.argv[1:], "run", "--take-over")
    if line is None:
        from site_agent import cli  # noqa: PLC0415 - it is what `run` does without

        cli.main()
        return
    keep_memory_private()  # before a private key is read
    try:
        load_structlog_alone()
        run(line.home, drain_s=line.drain_s, take_over=line.switched)
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - raised again there, if it is none of ours
        from site_agent import cli  # noqa: PLC0415

        cli.leave(error)


def run(home: Path, *, drain_s: float, take_over: bool) -> None:
    """`site-agent run`, alone or as one of several processes."""
    from site_agent.app import run_until_stopped  # noqa: PLC0415 - after structlog
    from site_agent.processes import alone_or_together  # noqa: PLC0415

    alone_or_together(lambda: asyncio.run(run_until_stopped(home, drain_s=drain_s, takes_over=take_over)))
