"""The program `consortium`: every command is in `cli.py`, and `consortium serve` starts without it.

A coordinator serves for months, and what only its command line needs would be in memory all the while
(`contract/light_start.py`).
"""

import asyncio
import sys
from pathlib import Path

from consortium.contract.light_start import load_structlog_alone, plain_line
from consortium.contract.private_process import keep_memory_private


def main() -> None:
    """The console script."""
    line = plain_line(sys.argv[1:], "serve", "--standby")
    if line is None:
        from consortium import cli  # noqa: PLC0415 - it is what `serve` does without

        cli.main()
        return
    keep_memory_private()  # before a private key is read
    try:
        load_structlog_alone()
        serve(line.home, drain_s=line.drain_s, standby=line.switched)
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - raised again there, if it is none of ours
        from consortium import cli  # noqa: PLC0415

        cli.leave(error)


def serve(home: Path, *, drain_s: float, standby: bool) -> None:
    """`consortium serve`, with its line on stdout once it does."""
    from consortium.app import serve_until_stopped  # noqa: PLC0415 - after structlog

    ready = lambda line: print(line, flush=True)  # noqa: E731, T201 - a result
    asyncio.run(serve_until_stopped(home, ready=ready, drain_s=drain_s, standby=standby))
