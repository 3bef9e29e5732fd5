"""What the wire asks of the coordinator: one protocol, no gRPC in sight."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from consortium.contract.certificates import PeerIdentity
from consortium.contract.messages import (
    CoordinatorMessage,
    EnrolmentGrant,
    EnrolmentRequest,
    EventReceipt,
    Hello,
    SiteMessage,
    StudyDocument,
    VectorHeader,
    VectorKind,
)
from consortium.contract.names import Digest


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

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        """Take a vector. It counts only if `chunks` was read to its normal end.

        `chunks` raises WireViolation as soon as the bytes are more or fewer than announced, or not of the announced
        SHA-256: what was stored by then is thrown away.
        """

    async def open_vector(
        self, peer: PeerIdentity, kind: VectorKind, digest: Digest
    ) -> tuple[VectorHeader, AsyncIterator[bytes]]:
        """A vector to be sent, in chunks of any size; raises if there is none such for this site."""

    async def submit_events(self, peer: PeerIdentity, events: tuple[bytes, ...]) -> EventReceipt:
        """Append a site's signed entries to the log; returns when they are durable."""

    async def list_studies(self, peer: PeerIdentity) -> tuple[StudyDocument, ...]:
        """The studies this site is named in."""

    async def execute(self, peer: PeerIdentity, command: str, arguments: bytes) -> bytes:
        """An operator's command; arguments and answer are canonical JSON objects."""

    def watch(self, peer: PeerIdentity) -> AsyncIterator[bytes]:
        """A canonical JSON object whenever something changed."""

    async def enrol(self, request: EnrolmentRequest) -> EnrolmentGrant:
        """Certify a site's keys for a one-time token. The caller has no certificate, so there is no peer."""
