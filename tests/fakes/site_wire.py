"""A hospital's home under the authority of `wire_world`, so that its agent can dial a real coordinator's wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consortium.contract.certificates import PeerIdentity
from consortium.contract.kit import Kit
from consortium.contract.messages import StudyDocument
from consortium.contract.study import StudyFile
from site_agent.home import AgentHome
from tests.fakes.kits import kit_of
from tests.fakes.site_world import ME, keys, make_home, small_study
from tests.fakes.wire_world import RecordingService, World, coordinator, pki

STUDY = small_study()


def document_of(content: StudyFile, **changes: Any) -> StudyDocument:
    """A study as the coordinator offers it, but for `changes`."""
    fields: dict[str, Any] = {
        "study": content.study_id,
        "study_digest": content.digest(),
        "document": content.document(),
        "state": "submitted",
    }
    return StudyDocument(**{**fields, **changes})


@dataclass
class StudyService(RecordingService):
    """A coordinator that offers studies."""

    offered: list[StudyDocument] = field(default_factory=lambda: [document_of(STUDY)])

    async def list_studies(self, peer: PeerIdentity) -> tuple[StudyDocument, ...]:
        self._maybe_fail("list_studies")
        return tuple(self.offered)


@asynccontextmanager
async def dialled(
    folder: Path, service: RecordingService | None = None, **policy: Any
) -> AsyncIterator[tuple[World, AgentHome]]:
    """A running coordinator, and a home that is enrolled with it."""
    async with coordinator(service or StudyService()) as world:
        yield world, make_home(folder, STUDY, authority=pki().authority, address=world.address, **policy)


def kit_for(world: World, **changes: Any) -> Kit:
    """A kit for the hospital, but for `changes`."""
    fields: dict[str, Any] = {
        "address": world.address,
        "site": ME,
        "token": "t" * 32,
        "coordinator_signing_key": keys().coordinator.public_key().public_bytes_raw().hex(),
    }
    return kit_of(changes.pop("authority", pki().authority), **{**fields, **changes})
