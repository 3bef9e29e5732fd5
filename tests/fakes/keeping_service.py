"""A service on the wire that keeps vectors as the coordinator does, also what came of one that was broken off."""

from collections.abc import AsyncIterator
from pathlib import Path

from consortium.contract.certificates import PeerIdentity
from consortium.contract.messages import VectorHeader
from consortium.contract.names import Digest
from consortium.vectors import VectorStore
from consortium.wire.transfer import Begun
from tests.fakes.wire_world import RecordingService

NAME = Digest("a" * 64)


class Keeping(RecordingService):
    """It keeps every vector under one name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.store = VectorStore(folder)

    async def begin_vector(self, peer: PeerIdentity, header: VectorHeader, *, resumes: bool) -> Begun:
        if not resumes:
            self.store.forget_begun(NAME)
        return self.store.begun(NAME)

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        try:
            await self.store.receive_on(NAME, chunks)
        except Exception as error:
            self.broken_uploads.append(error)
            raise
