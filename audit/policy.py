"""Whose signatures a reader of the log wants to see (C2SP tlog-policy): log keys, witnesses, groups and one quorum.

Log format section 9. The file comes to a reader from somebody the reader trusts, never from the evidence it judges.
How large a quorum must be is arithmetic (`witnesses_needed`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from audit.checkpoint import SignedCheckpoint
from audit.cosignature import WitnessKey
from audit.errors import VerificationError
from audit.note import NoteVerifier

POLICY_BYTES_MAX = 1 << 20
WITNESSES_MAX, GROUPS_MAX = 4096, 64
NO_QUORUM = "none"


def witnesses_needed(witnesses: int, liars: int) -> int:
    """How many cosignatures of `witnesses` rule out two histories while at most `liars` of them lie.

    Two sets of q out of n share at least 2q - n members, and one of those must be honest: q = floor((n + f) / 2) + 1.
    """
    if not 0 <= liars < witnesses:
        raise ValueError(f"of {witnesses} witnesses 0 to {witnesses - 1} may lie, not {liars}")
    return (witnesses + liars) // 2 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """So many of the members, each a witness or another group."""

    needed: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A witness that cosigned, and when."""

    witness: str  # its name in the policy
    time_s: int  # seconds since 1970, by the witness's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A parsed policy file."""

    logs: tuple[NoteVerifier, ...]
    witnesses: Mapping[str, WitnessKey] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    quorum: str = NO_QUORUM  # a witness, a group, or none

    def log(self, origin: str) -> NoteVerifier:
        """The key of a log; raises VerificationError unless there is exactly one."""
        found = [verifier for verifier in self.logs if verifier.name == origin]
        if len(found) != 1:
            raise VerificationError("policy", f"one key for the log {origin[:80]!r}", f"{len(found)} keys")
        return found[0]

    def require_quorum(self, signed: SignedCheckpoint) -> tuple[Cosigned, ...]:
        """The policy's witnesses that cosigned; raises VerificationError for a bad cosignature or too few."""
        cosigned: dict[str, Cosigned] = {}
        for signature in signed.note.signatures:
            for name, key in self.witnesses.items():
                if key.is_of(signature):
                    cosigned[name] = Cosigned(witness=name, time_s=key.verify(signed.note.text, signature))
        if self.quorum != NO_QUORUM and not self.is_met(self.quorum, cosigned):
            found = ", ".join(cosigned) or "none"
            raise VerificationError("quorum", self.described(self.quorum), f"cosignatures of {found}")
        return tuple(cosigned.values())

    def is_met(self, name: str, cosigned: Iterable[str]) -> bool:
        """Whether a witness or group has cosigned."""
        if name in self.witnesses:
            return name in cosigned
        group = self.groups[name]
        return sum(self.is_met(member, cosigned) for member in group.members) >= group.needed

    def described(self, name: str) -> str:
        """A quorum in words, for an error."""
        if name in self.witnesses:
            return f"a cosignature of {name}"
        group = self.groups[name]
        return f"{group.needed} of {', '.join(group.members)}"


def parse_policy(data: bytes) -> Policy:
    """Read a policy; raises VerificationError with the line."""
    if len(data) > POLICY_BYTES_MAX:
        raise VerificationError("policy", f"at most {POLICY_BYTES_MAX} bytes", str(len(data)))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise VerificationError("policy", "UTF-8", f"byte {error.start} is not") from error
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.partition("#")[0].split()
        if words:
            reader.line(f"policy, line {number}", words)
    return reader.policy()


class _Reader:
    """A policy in the making. Mutable: it takes one line after another."""

    def __init__(self) -> None:
        self._logs: list[NoteVerifier] = []
        self._witnesses: dict[str, WitnessKey] = {}
        self._groups: dict[str, Group] = {}
        self._members: set[str] = set()
        self._quorum: str | None = None

    def line(self, place: str, words: Sequence[str]) -> None:
        """Take one line; names are defined before they are used."""
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self._logs.append(NoteVerifier.from_vkey(vkey))
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                key = WitnessKey.from_vkey(vkey)
                if any(key.public_key == other.public_key for other in self._witnesses.values()):
                    raise VerificationError(
                        place, "a key of its own for each witness", f"the key of another as {name!r}"
                    )
                self._define(place, name)
                self._witnesses[name] = key
            case ["group", name, needed, *members]:
                self._group(place, name, needed, members)
            case ["quorum", name]:
                if self._quorum is not None:
                    raise VerificationError(place, "one quorum line", "a second")
                if name != NO_QUORUM:
                    self._require_known(place, name)
                self._quorum = name
            case _:
                raise VerificationError(place, "log, witness, group or quorum, as in tlog-policy", repr(words[0][:60]))

    def policy(self) -> Policy:
        """What was read."""
        if not self._logs:
            raise VerificationError("policy", "a `log <vkey>` line", "none")
        if self._quorum is None:
            raise VerificationError("policy", "a `quorum` line", "none")
        keys = [*(log.public_key for log in self._logs), *(key.public_key for key in self._witnesses.values())]
        if len(set(keys)) != len(keys):
            raise VerificationError("policy", "every key once", "one key under two names")
        return Policy(logs=tuple(self._logs), witnesses=self._witnesses, groups=self._groups, quorum=self._quorum)

    def _group(self, place: str, name: str, needed: str, members: list[str]) -> None:
        for member in members:
            self._require_known(place, member)
            if member in self._members:
                raise VerificationError(place, "every witness and group in one group at most", f"{member!r} again")
            self._members.add(member)
        counts = {"all": len(members), "any": 1}
        number = counts.get(needed, int(needed) if needed.isascii() and needed.isdigit() and len(needed) < 5 else 0)
        if not 1 <= number <= len(members):
            raise VerificationError(place, f"all, any or a number from 1 to {len(members)}", repr(needed[:20]))
        self._define(place, name)
        self._groups[name] = Group(needed=number, members=tuple(members))

    def _define(self, place: str, name: str) -> None:
        if name == NO_QUORUM or name in self._witnesses or name in self._groups:
            raise VerificationError(place, "a name that is not used yet", repr(name[:60]))
        if len(self._witnesses) >= WITNESSES_MAX or len(self._groups) >= GROUPS_MAX:
            raise VerificationError(place, f"at most {WITNESSES_MAX} witnesses and {GROUPS_MAX} groups", "more")

    def _require_known(self, place: str, name: str) -> None:
        if name not in self._witnesses and name not in self._groups:
            raise VerificationError(place, "a witness or group defined above", repr(name[:60]))


def policy_for(
    log_vkey: str,
    witnesses: Mapping[str, WitnessKey] | None = None,
    *,
    needed: int = 0,
    outside: Sequence[WitnessKey] = (),
) -> bytes:
    """The policy file of a consortium: the log's key, its witnesses in the order of their names, and the quorum.

    Args:
        log_vkey: As the enrolment kit carries it.
        witnesses: Name in the policy -> key; none for a log without witnesses.
        needed: How many of them must have cosigned; 0 for none.
        outside: Witnesses that are no hospitals, under the names of their keys; all of them must have cosigned.
    """
    names = sorted(witnesses or {})
    lines = [
        f"# The key of the log {log_vkey.partition('+')[0]}. Compare this file with a hospital's copy.",
        f"log {log_vkey}",
        *(f"witness {name} {witnesses[name].vkey()}" for name in names if witnesses),
        *(f"witness {key.name} {key.vkey()}" for key in outside),
    ]
    if needed:
        lines += [f"group hospitals {needed} {' '.join(names)}"]
    if needed and outside:
        lines += [f"group everybody all hospitals {' '.join(key.name for key in outside)}", "quorum everybody"]
    elif needed:
        lines += ["quorum hospitals"]
    else:
        lines.append(f"quorum {NO_QUORUM}")
    return ("\n".join(lines) + "\n").encode()
