"""Who got in and who was turned away, for the log: every kind of it, and never so often that the log could be flooded.

What is alike (the same subject, action and rule) is written a few times in an hour, and counted after that; the number
of the others follows as one `access.repeated`. Subjects, actions and rules come from certificates we issued and from
the tables here, never from what somebody typed or sent: neither a patient's number nor a path can get in.

Held in memory until it is written: what was counted and not yet written when a process is killed is lost.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from audit import entries
from audit.fields import one_line
from consortium.contract.bearer import TokenRefused
from consortium.contract.certificates import CertificateRefused, PeerIdentity, Role
from consortium.contract.names import SiteId
from consortium.errors import EnrolmentRefused
from consortium.record import Recorder, now_stamp
from consortium.sessions import SessionReplaced

ALIKE_MAX, KIND_MAX, WINDOW_S = 10, 100, 3600.0
"""So many entries of one sort, and of a kind altogether, in a window: anybody can cause one, and all are kept."""

NOBODY = "unknown"
OPERATOR = "operator"
UNKNOWN_ACCOUNT = "account:unknown"
"""Of a certificate whose account is not there any more."""
_DENIED_CODES = frozenset({"refused", "suspended", "invalid", "not_found", "conflict"})

_RULES = {
    "AccessDenied": "this certificate may not do that",
    "AccountConflict": "the account is not in a state that allows it, or has other keys",
    "AccountUnknown": "no such account",
    "AgentTooOld": "an agent older than this coordinator serves",
    "CommandRefused": "a command or arguments that the coordinator does not take",
    "DecisionUnsigned": "a decision about a study that no steward of the site signed",
    "EnrolmentRefused": "the token or the keys are not good",
    "EventRefused": "a signed event that does not continue what the site signed before",
    "RenewalRefused": "a certificate request that is not for the same hospital's next certificate",
    "RequestRefused": "a certificate request that the authority does not sign",
    "SessionReplaced": "another agent opened a session under the same certificate",
    "SiteRevoked": "the site is revoked",
    "SiteSuspended": "the site is suspended",
    "RoleRefused": "not a command of this role, or a study of somebody else's",
    "SiteConflict": "the site is not in a state that allows it",
    "SiteUnknown": "no such site",
    "SubmissionRefused": "a submission that its owner did not sign for this study here",
    "StudyConflict": "the study is not in a state that allows it",
    "StudyUnknown": "no such study",
    "UploadRefused": "an upload that nobody asked for",
    "VectorMissing": "no such vector for this site",
    "WireViolation": "a message beyond its bounds, or out of place",
}
_RULES_BY_CODE = {
    "refused": "it is not allowed",
    "suspended": "it is not allowed for now",
    "invalid": "it is not well formed",
    "not_found": "there is no such thing for this caller",
    "conflict": "nothing is in a state that allows it",
}
"""For errors that are not in the table above."""


@dataclass(frozen=True, slots=True)
class _Sort:
    """What makes two entries alike."""

    of: str
    subject: str
    action: str
    rule: str


@dataclass(slots=True)
class _Seen:
    """One sort: when it was written last, and what was only counted since."""

    written: deque[float] = field(default_factory=lambda: deque(maxlen=ALIKE_MAX))
    counted: int = 0
    since: str = ""


class AccessRecord:
    """Writes auth.ok, auth.failed, authz.denied and access.repeated; may be used from any thread."""

    def __init__(
        self,
        recorder: Recorder,
        clock: Callable[[], float] = time.monotonic,
        pseudonym: Callable[[str], str | None] = lambda _account: None,
    ) -> None:
        """`pseudonym` knows how the person of an account appears in the log, who must not appear by name."""
        self._recorder = recorder
        self._pseudonym = pseudonym
        self._clock = clock
        self._seen: dict[_Sort, _Seen] = {}
        self._kinds: dict[str, deque[float]] = {}
        self._lock = Lock()

    def session_opened(self, site: SiteId, agent_version: str) -> None:
        """An enrolled site's agent said hello."""
        entry = entries.AuthOk(**now_stamp(), site=site, agent_version=one_line(agent_version)[:40].strip())
        self._take(_Sort(entry.TYPE, f"site:{site}", "connect", ""), entry)

    def unproven(self, action: str, rule: str) -> None:
        """Somebody could not prove who they are."""
        entry = entries.AuthFailed(**now_stamp(), reason=f"{action}: {rule}")
        self._take(_Sort(entry.TYPE, NOBODY, action, rule), entry)

    def denied(self, subject: str, action: str, rule: str) -> None:
        """Somebody known asked for what they may not have."""
        entry = entries.AuthzDenied(**now_stamp(), subject=subject, action=action, rule=rule)
        self._take(_Sort(entry.TYPE, subject, action, rule), entry)

    def denied_if(self, subject: str, action: str, error: Exception) -> None:
        """`denied`, if this error means that somebody asked for what they may not have."""
        if rule := rule_of(error):
            self.denied(subject, action, rule)

    def turned_away(self, peer: PeerIdentity | None, action: str, error: Exception) -> None:
        """A call ended in an error: logged if the caller may not have what it asked for, or sent what it should not."""
        if isinstance(error, CertificateRefused):
            self.unproven(action, f"the certificate was refused: {error.fault}")
        elif isinstance(error, TokenRefused):
            self.unproven(action, f"the token was refused: {error.fault}")
        elif isinstance(error, EnrolmentRefused):
            return  # whoever refused it wrote down what stood against it
        elif (rule := rule_of(error)) and (peer is None or peer.role is Role.INVITED):
            self.unproven(action, rule)  # who holds a kit has not proven yet who that is
        elif rule and peer is not None and not _may_come_too_late(peer, error):
            self.denied(self._subject(peer), action, rule)

    def _subject(self, peer: PeerIdentity) -> str:
        """Who it was, in the log."""
        if peer.role is Role.ACCOUNT:
            return self._pseudonym(peer.name) or UNKNOWN_ACCOUNT
        return OPERATOR if peer.role is Role.OPERATOR else f"site:{peer.name}"

    def settle(self) -> None:
        """Write down everything that was only counted so far."""
        with self._lock:
            due = [self._repeated(sort, seen) for sort, seen in self._seen.items() if seen.counted]
        if due:
            self._recorder.record(*due)

    def _take(self, sort: _Sort, entry: entries.Entry) -> None:
        with self._lock:
            now = self._clock()
            seen = self._seen.setdefault(sort, _Seen())
            kind = self._kinds.setdefault(sort.of, deque(maxlen=KIND_MAX))
            if _is_full(seen.written, now) or _is_full(kind, now):
                seen.counted += 1
                seen.since = seen.since or entry.ts
                return
            seen.written.append(now)
            kind.append(now)
            made = [self._repeated(sort, seen)] if seen.counted else []
        self._recorder.record_soon(*made, entries.entry_bytes(entry))

    @staticmethod
    def _repeated(sort: _Sort, seen: _Seen) -> bytes:
        entry = entries.AccessRepeated(
            **now_stamp(),
            of=sort.of,
            subject=sort.subject,
            action=sort.action,
            rule=sort.rule or "none",
            count=seen.counted,
            since=seen.since,
        )
        seen.counted, seen.since = 0, ""
        return entries.entry_bytes(entry)


def rule_of(error: Exception) -> str:
    """The rule that stood against a caller, in words of ours; empty if the caller did nothing that is refused."""
    code = getattr(error, "code", "")
    if code not in _DENIED_CODES:
        return ""
    named = (_RULES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _RULES)
    return next(named, _RULES_BY_CODE[code])


def _may_come_too_late(peer: PeerIdentity, error: Exception) -> bool:
    """A conflict of a site is mostly an upload that arrives when its attempt is over: no denial, but a slow line."""
    return (
        peer.role is Role.SITE and getattr(error, "code", "") == "conflict" and not isinstance(error, SessionReplaced)
    )


def _is_full(times: deque[float], now: float) -> bool:
    return len(times) == times.maxlen and now - times[0] < WINDOW_S
