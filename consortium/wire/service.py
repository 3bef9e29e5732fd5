"""What the wire asks of the coordinator: one protocol, no gRPC in sight."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from consortium.contract.bearer import Bearer
from consortium.contract.certificates import PeerIdentity
from consortium.contract.messages import (
    AccountRequest,
    CoordinatorMessage,
    DroppedLeaves,
    EnrolmentGrant,
    EnrolmentRequest,
    EventReceipt,
    Greeting,
    Hello,
    LogGrowth,
    LogPosition,
    SiteMessage,
    StudyDocument,
    VectorHeader,
    VectorKind,
)
from consortium.contract.names import Digest
from consortium.wire.transfer import Begun


class CoordinatorService(Protocol):
    """The coordinator, as the wire sees it. Every decision is made behind this line.

    `peer` is always the holder of a certificate that this consortium issued, that is valid now and has the role the
    method is for; whether it may still use it (revoked, unknown) is for `authenticate` to say, which runs before every
    other method. An error with `code` and `advice()` reaches the caller as it is; any other as an incident number.

    A caller that hangs up never cancels a method half-way: the methods run to their end, and learn of it from
    `incoming` or `chunks` ending, or from `send` raising SessionBroken.
    """

    async def authenticate(self, peer: PeerIdentity) -> None:
        """Raises if this certificate may no longer be used, or its holder is not known."""

    async def run_session(
        self,
        peer: PeerIdentity,
        hello: Hello,
        incoming: AsyncIterator[SiteMessage],
        send: Callable[[CoordinatorMessage], Awaitable[None]],
    ) -> None:
        """One site's session, from its Hello to its end.

        Returning ends it in order; raising ends it with that error. `incoming` ends when the site left, in whatever
        way, or the coordinator is stopping. It raises WireViolation for a message that breaks a bound, names another
        site than the certificate's, or is a second Hello: let it pass through. `send` may be called by several tasks.
        """

    def upload_limit(self, peer: PeerIdentity, header: VectorHeader) -> int:
        """How many bytes this site may upload under this header now; raises to refuse it altogether."""

    async def begin_vector(self, peer: PeerIdentity, header: VectorHeader, *, resumes: bool) -> Begun:
        """What is here of a vector whose upload was broken off: the chunks go on from there. Nothing of most.

        A sender that does not resume begins anew: what is here is thrown away.
        """

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        """Take a vector. It counts only if `chunks` was read to its normal end.

        `chunks` raises BrokenOff when it ends early: what was stored by then may be kept, for the rest to come. It
        raises any other WireViolation as soon as the bytes are more than announced, or not of the announced SHA-256:
        then it is thrown away.
        """

    async def open_vector(
        self, peer: PeerIdentity, kind: VectorKind, digest: Digest
    ) -> tuple[VectorHeader, AsyncIterator[bytes]]:
        """A vector to be sent, in chunks of any size; raises if there is none such for this site."""

    async def submit_events(self, peer: PeerIdentity, events: tuple[bytes, ...]) -> EventReceipt:
        """Append a site's signed entries to the log; returns when they are durable."""

    async def follow_log(
        self, peer: PeerIdentity, position: LogPosition
    ) -> tuple[LogGrowth, AsyncIterator[tuple[bytes, ...] | DroppedLeaves]]:
        """How the log grew from a site's copy, and the entries it added, a bounded number of bytes at a time."""

    async def cosign_log(self, peer: PeerIdentity, note: bytes) -> None:
        """Take a site's cosignature; returns when it is durable, raises if it is none."""

    async def list_studies(self, peer: PeerIdentity) -> tuple[StudyDocument, ...]:
        """The studies this site is named in."""

    async def greet(self, peer: PeerIdentity) -> Greeting:
        """The clock and the release of this coordinator."""

    async def execute(self, peer: PeerIdentity | Bearer, command: str, arguments: bytes) -> bytes:
        """A command of an account, or of the home's own operator; arguments and answer are canonical JSON objects."""

    def watch(self, peer: PeerIdentity | Bearer) -> AsyncIterator[bytes]:
        """A canonical JSON object whenever something changed."""

    async def turned_away(self, peer: PeerIdentity | Bearer | None, method: str, error: Exception) -> None:
        """A call ended in an error that no other method here raised; `peer` is None if it is not known who called.

        An error of `authenticate` is not told again. Must not raise.
        """

    async def enrol_account(self, peer: PeerIdentity, request: AccountRequest) -> EnrolmentGrant:
        """The same for a person's account."""

    async def enrol(self, peer: PeerIdentity, request: EnrolmentRequest) -> EnrolmentGrant:
        """Certify a site's keys for a one-time token; `peer` is the holder of the certificate in a kit."""

    async def renew(self, peer: PeerIdentity, request_der: bytes) -> EnrolmentGrant:
        """The next certificate of the site that asks, whose keys the request proves."""
