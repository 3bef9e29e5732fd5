"""A hospital's agent that is killed just before its n-th write while it changes its signing keys.

Run by `tests/unit/site_agent/test_signing_key_change.py` as a program of its own. As `dying.py` does it, and besides at
each of the system's calls that change a file: the keys are in files, and which of them sign is in agent.db.
"""

import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import structlog

from audit import entries
from audit.errors import AuditError
from audit.site_keys import SiteKeys
from audit.stewards import public_hex
from site_agent.home import AgentHome, open_home
from site_agent.signed_events import SignedEvents
from site_agent.signing_key_change import is_prepared, prepare, settle_keys, sign_change
from site_agent.stewards import enrol_steward
from site_agent.store import Store
from tests.adversarial.dying import Killer, connect
from tests.fakes.site_world import make_home, small_study
from tests.fakes.stewards import KEY, NAME
from tests.fakes.watching_hospital import enrolled

CHANGES_A_FILE = {"os.rename", "os.link", "os.remove", "os.truncate"}


def count(event: str, args: tuple[Any, ...]) -> None:
    """The hook: a write is a death like a statement's."""
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if event in CHANGES_A_FILE or writes:
        if Killer.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Killer.left -= 1


def change(home: AgentHome, store: Store) -> None:
    """The whole of it, but for the coordinator."""
    if not is_prepared(home) and store.own_keys() is None:
        prepare(home, store, NAME, KEY)
    sign_change(home, store)


def holds(home: AgentHome, store: Store) -> bool:
    """Whether everything that is signed is as everybody would follow it."""
    keys, log = SiteKeys(home.log_origin), [enrolled(home.site, bytes.fromhex(home.identity.signing_key))]
    try:
        for data in [*log, *store.signed_entries()]:
            if data in log or b'"steward.' in data or b'"site.keys_rotated"' in data:
                keys.take(data)
            else:
                entries.verify_site_entry(data, bytes.fromhex(keys.key_of(home.site) or ""))
        entries.replay_chains([*log, *store.signed_entries()])
    except AuditError:
        return False
    return True


def look(folder: Path) -> dict[str, Any]:
    """What the next process finds: keys that work at once, and after it has gone on to the end."""
    home, store = open_home(folder), Store(folder / "agent.db")
    said = {"study": "small-study", "study_digest": "5d" * 32, "steward": "u:" + "0" * 16, "reason": "no"}
    found: dict[str, Any] = {"changed": store.own_keys() is not None}
    SignedEvents(home, store).add(entries.StudyRejected, **said)  # as a steward's command would, before any start
    found["holds"] = holds(home, store)
    settle_keys(home, store)
    now = store.own_keys()
    found["signs"] = public_hex(home.signing_key) == (home.identity.signing_key if now is None else now.signing)
    change(home, store)
    SignedEvents(home, store).add(entries.StudyRejected, **said)
    kinds = [entries.parse_entry(data).TYPE for data in store.signed_entries()]
    left = sorted(path.name for path in (folder / "keys").iterdir() if "ign" in path.name or "ecdsa" in path.name)
    now = store.own_keys()
    found["at_the_end"] = {
        "holds": holds(home, store),
        "changes": kinds.count("site.keys_rotated"),
        "files": left,
        "signs": now is not None and home.signing_keys == now != store.former_own_keys(home.identity.signing_key),
    }
    return found


def main(work: Path) -> None:
    """Print what is found after each death, and last after a life without one."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    first = work / "first"
    home = make_home(first, small_study())
    store = Store(first / "agent.db")
    enrol_steward(home, store, NAME, KEY)
    store.close()
    sqlite3.connect = connect  # type: ignore[assignment]  # the store asks for it by this name
    sys.addaudithook(count)
    for number in range(1000):
        folder = work / str(number)
        shutil.copytree(first, folder)
        child = os.fork()
        if child == 0:
            opened, store = open_home(folder), Store(folder / "agent.db")
            Killer.left = number
            change(opened, store)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and status != 0:
            sys.exit(f"the agent failed by itself: {status}")
        print(json.dumps({"killed": killed, **look(folder)}), flush=True)
        if not killed:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
