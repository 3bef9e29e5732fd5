"""Which keys of the consortium's log this hospital believes: `log-keys.json` in the agent's home.

Log format section 11. The first one is the enrolment kit's (identity.json). When the log changes its key, the agent
reads so in its copy, under a checkpoint that the key it believed signed, and writes the new one down here before it
believes a checkpoint that only the new one signed. The file is not in `log/`: whoever removes a damaged copy does not
go back to a key that was retired.
"""

import json

from audit.errors import VerificationError
from audit.key_rotation import LogKeys
from audit.note import NoteVerifier
from consortium.contract.private_files import write_private
from site_agent.errors import SiteError
from site_agent.home import FILE_BYTES_MAX, AgentHome, HomeInvalid

NAME = "log-keys.json"


class LogKeyRefused(SiteError):
    """A key that cannot be the log's. Whose fault: who typed it."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Ask the consortium lead for the log's key, by telephone or from another hospital; nothing was changed."


def believed_keys(home: AgentHome) -> LogKeys:
    """The log's keys as they were written down last, or the enrolment kit's; raises HomeInvalid."""
    return _read(home, "vkeys") or LogKeys.from_vkeys([home.identity.log_vkey])


def keys_of_copy(home: AgentHome) -> tuple[NoteVerifier, ...]:
    """The keys under which the copy here may stand, the newest first; raises HomeInvalid.

    After `accept_key` they are more than those that a new checkpoint is judged by.
    """
    before = _read(home, "copy_vkeys")
    keys = [*reversed(believed_keys(home).accepted), *(before.accepted if before is not None else ())]
    return tuple(dict.fromkeys(keys))


def _read(home: AgentHome, name: str) -> LogKeys | None:
    path = home.folder / NAME
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(FILE_BYTES_MAX))
        keys = LogKeys.from_vkeys(found[name]) if found["vkeys"] and name in found else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, VerificationError) as error:
        raise HomeInvalid(f"{path} is damaged, or not to be read: put it back from a backup") from error
    if keys is not None and keys.newest.name != home.identity.log_vkey.partition("+")[0]:
        raise HomeInvalid(f"{path} has keys of another log than this home was enrolled in")
    return keys


def keep_keys(home: AgentHome, keys: LogKeys, *of_copy: NoteVerifier) -> None:
    """Write them down, durably, and under which other keys the copy may stand; raises OSError."""
    found = {"vkeys": keys.vkeys()} | ({"copy_vkeys": [key.vkey() for key in of_copy]} if of_copy else {})
    write_private(home.folder / NAME, json.dumps(found).encode(), replace=True)


def accept_key(home: AgentHome, vkey: str) -> None:
    """Believe one key that a person compared, and no other.

    Raises:
        LogKeyRefused: It is no key of this hospital's log.
        OSError: The disk refuses; nothing changed.
    """
    try:
        keys = LogKeys.from_vkeys([vkey])
    except VerificationError as error:
        raise LogKeyRefused(str(error)) from error
    name = home.identity.log_vkey.partition("+")[0]
    if keys.newest.name != name:
        raise LogKeyRefused(f"this is a key of the log {keys.newest.name[:80]!r}, and this hospital's is {name!r}")
    keep_keys(home, keys, *keys_of_copy(home))
