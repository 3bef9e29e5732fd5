"""One study in the log, held against what this hospital itself knows of it (pure).

What a hospital did stands in three places: in the log, as everybody sees it; in what the agent signed and remembers; in
its ledger and its own log of what left. Each line of a review says whether two of them agree, and if not, at which leaf
of the log and how. A line that nothing here can decide is "not known", never a pass.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from audit import entries
from audit.errors import EntryRefused

MASKED_UPDATE = "masked-update"
EPSILON_TOLERANCE = 1e-6
LATE_S = 60.0
"""Clocks of hospitals differ by less. What was handed over so long before the copy's last entry must be in it."""


class Status(StrEnum):
    """What a line came to."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewLine:
    """One thing that was looked at."""

    title: str
    status: Status
    said: str
    leaf: int | None = None  # of the log, where a failure is
    expected: str = ""
    found: str = ""

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "title": self.title,
            "status": str(self.status),
            "said": self.said,
            "leaf": self.leaf,
            "expected": self.expected,
            "found": self.found,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """All of it."""

    study: str
    lines: tuple[ReviewLine, ...]

    @property
    def failed(self) -> bool:
        """Whether any line does not hold."""
        return any(line.status is Status.FAIL for line in self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The study's training in the hospital's ledger."""

    steps: int
    unsettled: int  # attempts reserved and not settled: they count, and may not be signed for yet
    epsilon: float
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One masked update that left the building."""

    leaf: int | None  # in the hospital's own log; None: it waits
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """The largest part of the copy that a hospital is known to have cosigned."""

    site: str
    size: int  # entries, from the first on
    when: str  # by the hospital's own clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """The copy's checkpoint, and what hospitals have cosigned of it."""

    size: int
    root: str
    cosigned: tuple[Cosigned, ...]
    needed: int  # so many of the study's hospitals rule out another history
    broken: str = ""  # why their keys could not be read from this log


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFacts:
    """What this hospital knows without the log."""

    site: str
    signing_key: str  # the public half, 64 hexadecimal characters
    study: str
    study_digest: str
    decision: str  # approved | rejected | withdrawn
    signed: tuple[bytes, ...]  # every entry it ever signed, of all studies, in order
    acknowledged: int  # the coordinator said that so many of them are in the log
    counted: Counted | None  # None: the ledger has nothing of the study
    left: tuple[Left, ...]
    last_model: tuple[int, str] | None  # the last round that was verified here, and the model's digest
    witnessed: Witnessed


class _Disagreement(Exception):
    """Two places say different things."""

    def __init__(self, leaf: int | None, expected: object, found: object) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.leaf, self.expected, self.found = leaf, str(expected), str(found)


class _NotKnown(Exception):
    """Nothing here can decide it."""


@dataclass(kw_only=True)
class _Read:
    """What the log says; mutable until it is read."""

    mine: dict[bytes, int] = field(default_factory=dict)  # entries of this hospital, of every study: where they stand
    enrolled: bool = False  # with the key that this hospital has now
    odd: _Disagreement | None = None  # an entry that stands there twice, or a key in this hospital's name
    study: list[tuple[int, entries.Entry]] = field(default_factory=list)
    last_ts: str = ""

    def of(self, *kinds: type[entries.Entry]) -> Iterator[tuple[int, Any]]:
        """Entries of the study."""
        return ((leaf, entry) for leaf, entry in self.study if isinstance(entry, kinds))


def review(log: Iterable[bytes | None], own: OwnFacts) -> Review:
    """Hold a whole log, whose root was recomputed, against a hospital's own facts."""
    read = _Read()
    try:
        for leaf, data in enumerate(log):
            if data is not None:  # what a policy of the consortium let go before this hospital came
                _take(read, leaf, data, own)
    except _Disagreement as error:  # nothing can be said of a log that cannot be read
        return Review(study=own.study, lines=(_failed("the log", error),))
    lines: list[ReviewLine] = []
    checks = (
        ("my approval", _approval),
        ("the study", _state),
        ("my rounds", _rounds),
        ("my epsilon", _epsilon),
        ("my bytes", _bytes),
        ("my entries", _entries),
        ("the models", _models),
    )
    for title, check in checks:
        try:
            lines.append(ReviewLine(title=title, status=Status.PASS, said=check(read, own)))
        except _Disagreement as error:
            lines.append(_failed(title, error))
        except _NotKnown as reason:
            lines.append(ReviewLine(title=title, status=Status.UNKNOWN, said=str(reason)))
    size, root = own.witnessed.size, own.witnessed.root
    said = f"{size} entries, root {root}, recomputed from this hospital's copy"
    lines.append(ReviewLine(title="the log", status=Status.PASS, said=said))
    lines.append(_witnesses(read, own.witnessed))
    return Review(study=own.study, lines=tuple(lines))


def _failed(title: str, error: _Disagreement) -> ReviewLine:
    where = "" if error.leaf is None else f"leaf {error.leaf}: "
    said = f"{where}expected {error.expected}, found {error.found}"
    return ReviewLine(
        title=title, status=Status.FAIL, said=said, leaf=error.leaf, expected=error.expected, found=error.found
    )


def _take(read: _Read, leaf: int, data: bytes, own: OwnFacts) -> None:
    """Only what concerns the study, or is said in this hospital's name, is read in full."""
    try:
        record = json.loads(data)
        mine, about = record["actor"] == f"site:{own.site}", record.get("study") == own.study
        enrols = record["type"] == entries.SiteEnrolled.TYPE and record["body"]["site"] == own.site
        read.last_ts = max(read.last_ts, str(record["ts"]))
        entry = entries.parse_entry(data) if mine or about or enrols else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, EntryRefused) as error:
        raise _Disagreement(leaf, "an entry", f"{type(error).__name__}: {error}"[:200]) from error
    if isinstance(entry, entries.SiteEnrolled):
        if entry.signing_key == own.signing_key:
            read.enrolled = True
        elif read.enrolled and read.odd is None:
            read.odd = _Disagreement(leaf, f"{own.site} with the key that is here", "another key in its name")
    elif mine and read.enrolled:  # what stands before was signed in an earlier home, with another key
        if data in read.mine and read.odd is None:
            read.odd = _Disagreement(leaf, "each entry of this hospital once", f"that of leaf {read.mine[data]} again")
        read.mine.setdefault(data, leaf)
    if entry is not None and about:
        read.study.append((leaf, entry))


# --- the lines -----------------------------------------------------------------------------------------------------


def _approval(read: _Read, own: OwnFacts) -> str:
    """Every invitation of this hospital came while its approval of exactly this study stood in the log."""
    standing: tuple[int, entries.StudyApproved] | None = None
    before = 0
    for leaf, entry in read.of(entries.StudyApproved, entries.StudyRejected, entries.RoundStarted):
        if isinstance(entry, entries.RoundStarted):
            if own.site not in entry.participants:
                continue
            if standing is None:
                raise _Disagreement(leaf, f"an approval by {own.site} before round {entry.round}", "none standing")
            before += 1
        elif entry.actor != f"site:{own.site}":
            continue
        elif isinstance(entry, entries.StudyRejected):
            standing = None
        elif entry.study_digest != own.study_digest:
            raise _Disagreement(leaf, f"an approval of study {own.study_digest}", entry.study_digest)
        else:
            standing = (leaf, entry)
    if standing is None:
        if own.decision == "approved":
            raise _NotKnown("approved here; the approval is not in this copy of the log yet")
        return f"none stands in the log, as decided here ({own.decision}); {before} invitations while one stood"
    leaf, approved = standing
    if own.decision != "approved":
        raise _NotKnown(f"leaf {leaf} approves; that it was {own.decision} here is not in this copy of the log yet")
    return f"leaf {leaf}, {approved.ts}; {before} invitations, all after it"


def _state(read: _Read, own: OwnFacts) -> str:
    """The study is the one that was decided about here, and this is where it stands."""
    created = list(read.of(entries.StudyCreated))
    if not created:
        raise _Disagreement(None, f"a study.created entry of {own.study}", "none")
    words = {
        entries.StudyCreated: "submitted",
        entries.StudyStarted: "running",
        entries.StudyResumed: "running",
        entries.StudyPaused: "paused",
        entries.StudyAborted: "aborted",
        entries.StudyCompleted: "completed",
    }
    for leaf, entry in read.of(entries.StudyCreated, entries.StudyStarted):
        if entry.study_digest != own.study_digest:
            raise _Disagreement(leaf, f"study {own.study_digest}, decided about here", entry.study_digest)
    leaf, last = list(read.of(*words))[-1]
    return f"{words[type(last)]} (leaf {leaf}); digest {own.study_digest}"


def _rounds(read: _Read, own: OwnFacts) -> str:
    """A sum has this hospital's update in it only if the hospital was invited and signed for an update."""
    invited = {(e.round, e.attempt) for _, e in read.of(entries.RoundStarted) if own.site in e.participants}
    submitted = {(e.round, e.attempt) for _, e in read.of(entries.UpdateSubmitted) if e.actor == f"site:{own.site}"}
    counted = 0
    for leaf, entry in read.of(entries.RoundClosed):
        if own.site not in entry.survivors:
            continue
        attempt = (entry.round, entry.attempt)
        what = f"round {entry.round}, attempt {entry.attempt}"
        if attempt not in invited:
            raise _Disagreement(leaf, f"{what}: an invitation of {own.site}", "none, and it is in the sum")
        if attempt not in submitted:
            raise _Disagreement(leaf, f"{what}: an update.submitted entry of {own.site}", "none, and it is in the sum")
        counted += 1
    return f"invited {len(invited)} times, {len(submitted)} updates submitted, {counted} in a sum"


def _epsilon(read: _Read, own: OwnFacts) -> str:
    """What was signed for is what the ledger counts, and within the study's budget."""
    spent = [(leaf, e) for leaf, e in read.of(entries.DpSpent) if e.actor == f"site:{own.site}"]
    ledger = own.counted
    if not spent:
        if ledger is None or not ledger.steps:
            return "nothing spent, here or in the log"
        if ledger.unsettled:
            raise _NotKnown(f"the ledger counts {ledger.steps} steps, none of them signed for in this copy yet")
        raise _Disagreement(None, f"dp.spent entries of {ledger.steps} steps, as the ledger counts", "none")
    leaf, last = spent[-1]
    if ledger is None or ledger.steps < last.steps_total:
        counted = 0 if ledger is None else ledger.steps
        raise _Disagreement(leaf, f"{last.steps_total} steps, signed for, in the ledger", counted)
    for _, created in read.of(entries.StudyCreated):
        if last.epsilon > created.epsilon + EPSILON_TOLERANCE:
            raise _Disagreement(leaf, f"at most the study's epsilon of {created.epsilon:g}", f"{last.epsilon:.6f}")
    if ledger.steps == last.steps_total and last.epsilon < ledger.epsilon - EPSILON_TOLERANCE:
        raise _Disagreement(leaf, f"at least the ledger's epsilon of {ledger.epsilon:.6f}", f"{last.epsilon:.6f}")
    more = ledger.steps - last.steps_total
    if more:
        said = f"the ledger counts {more} steps more than are signed for in this copy of the log"
        raise _NotKnown(f"{said}; signed: {last.epsilon:.4f} at leaf {leaf}")
    return f"{last.epsilon:.4f} at delta {last.delta:g}, signed at leaf {leaf}; the ledger says {ledger.epsilon:.4f}"


def _bytes(read: _Read, own: OwnFacts) -> str:
    """What left, by the hospital's own log, is what it signed for in the consortium's."""
    left: dict[str, list[Left]] = {}
    for one in own.left:
        left.setdefault(one.sha256, []).append(one)
    counted = {(e.round, e.attempt) for _, e in read.of(entries.RoundClosed) if own.site in e.survivors}
    signed: set[str] = set()
    total, unsent = 0, 0
    for leaf, entry in read.of(entries.UpdateSubmitted):
        if entry.actor != f"site:{own.site}":
            continue
        signed.add(entry.masked_update_sha256)
        found = left.get(entry.masked_update_sha256, [])
        for one in found:
            if one.size_bytes != entry.size_bytes:
                raise _Disagreement(leaf, f"{one.size_bytes} bytes, as this hospital's own log says", entry.size_bytes)
        if not found and (entry.round, entry.attempt) in counted:
            raise _Disagreement(leaf, "the masked update in this hospital's own log of what left", "none")
        total += entry.size_bytes if found else 0
        unsent += not found
    unsigned = [one for one in own.left if one.sha256 not in signed]
    known = {sha for data in own.signed if (sha := _submitted(data)) is not None}
    for one in unsigned:
        if one.sha256 not in known:
            where = (
                "what waits to be moved there" if one.leaf is None else f"leaf {one.leaf} of this hospital's own log"
            )
            raise _Disagreement(None, f"an update.submitted entry for {where}", "none was ever signed")
    never = f"; {unsent} signed for and never sent" if unsent else ""
    if unsigned:
        raise _NotKnown(f"{len(unsigned)} masked updates left that this copy of the log does not have yet{never}")
    return f"{total:,} bytes of masked updates left, each as signed for in the log{never}"


def _submitted(data: bytes) -> str | None:
    """The SHA-256 of the masked update that an own entry is about."""
    if b'"type":"update.submitted"' not in data:
        return None
    return str(json.loads(data)["body"]["masked_update_sha256"])


def _entries(read: _Read, own: OwnFacts) -> str:
    """Every entry that was ever signed here stands in the log once, in order; and none that was not."""
    if read.odd is not None:
        raise read.odd
    forged = set(read.mine) - set(own.signed)
    if forged:
        first = min(read.mine[data] for data in forged)
        raise _Disagreement(first, "an entry that this hospital signed", "one that it never did")
    last = -1
    missing: list[int] = []
    for number, data in enumerate(own.signed, start=1):
        leaf = read.mine.get(data)
        if leaf is None:
            missing.append(number)
        elif missing:
            raise _Disagreement(leaf, f"entry {missing[0]} of this hospital before its entry {number}", "no such leaf")
        elif leaf < last:
            raise _Disagreement(leaf, f"entry {number} of this hospital after leaf {last}", "before it")
        else:
            last = leaf
    taken = [number for number in missing if number <= own.acknowledged]
    if taken and _is_late(own.signed[taken[0] - 1], read.last_ts):
        raise _Disagreement(None, f"entry {taken[0]}, which the coordinator said is in the log", "it is not")
    if missing:
        raise _NotKnown(
            f"{len(own.signed) - len(missing)} of {len(own.signed)} are in the log, each in its place; from entry "
            f"{missing[0]} on this copy has none yet"
        )
    return f"all {len(own.signed)} that this hospital signed are in the log, each in its place"


def _is_late(data: bytes, last_ts: str) -> bool:
    """Whether the log went on for long after an entry that is not in it."""
    return bool(last_ts) and _seconds(last_ts) - _seconds(str(json.loads(data)["ts"])) > LATE_S


def _seconds(ts: str) -> float:
    return datetime.fromisoformat(ts).timestamp()


def _models(read: _Read, own: OwnFacts) -> str:
    """Each model that was computed again here is the one that the log says the round made; so is the released one."""
    closed = {(e.round, e.attempt): (leaf, e.next_model_digest) for leaf, e in read.of(entries.RoundClosed)}
    verified = 0
    for leaf, entry in read.of(entries.ModelVerified):
        if entry.actor == f"site:{own.site}" and (entry.round, entry.attempt) in closed:
            said = closed[entry.round, entry.attempt][1]
            if entry.next_model_digest != said:
                raise _Disagreement(leaf, f"model {said}, as round {entry.round} made", entry.next_model_digest)
            verified += 1
    if own.last_model is not None:
        number, digest = own.last_model
        for (round_number, _), (leaf, said) in closed.items():
            if round_number == number and said != digest:
                raise _Disagreement(leaf, f"model {digest}, computed here in round {number}", said)
    current = next((said for _, said in reversed(closed.values())), None)
    released = ""
    for leaf, entry in read.of(entries.ModelReleased):
        if entry.model_digest != current:
            raise _Disagreement(leaf, f"model {current}, of the last round", entry.model_digest)
        released = f"; released at leaf {leaf}: {entry.model_digest}"
    return f"{verified} of {len(closed)} rounds' models computed again here, all the same{released}"


def _witnesses(read: _Read, witnessed: Witnessed) -> ReviewLine:
    """Whether everybody sees the study as it stands here: who cosigned a checkpoint that all its entries are under."""
    title = "seen by all"
    if witnessed.broken:
        return _failed(title, _Disagreement(None, "a log that can be followed", witnessed.broken))
    sizes = sorted((one.size for one in witnessed.cosigned), reverse=True)
    covered = sizes[witnessed.needed - 1] if 0 < witnessed.needed <= len(sizes) else 0
    last = max((leaf for leaf, _ in read.study), default=-1)
    names = ", ".join(f"{one.site} ({one.size} entries, {one.when})" for one in witnessed.cosigned) or "nobody yet"
    if covered > last:
        said = f"the first {covered} entries, and so all of the study, have been cosigned by {witnessed.needed} or more"
    else:
        said = (
            f"{witnessed.needed} hospitals have cosigned the first {covered} entries; the study's last is leaf {last}"
        )
    status = Status.PASS if covered > last else Status.UNKNOWN
    return ReviewLine(title=title, status=status, said=f"{said}: {names}")
