"""Many hospitals in one process: scripted sites over real TLS with real certificates, for a model of any size.

    async with taking_part(field, study, model):
        ...

Each has its own connection, its own keys and its own session, and answers everything an agent answers; what they do not
have is a process each, a database, and training.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.cosignature import WitnessSigner
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import LaneName
from consortium.contract.messages import CoordinatorMessage, PrepareStudy, SendInitialModel, StudyPrepared
from consortium.contract.study import StudyFile
from consortium.home import open_home
from consortium.wire.client import CoordinatorClient
from consortium.wire.errors import WireError
from privacy.encoding import RingVector, encode
from privacy.secagg import site as secagg
from privacy.secagg.masks import apply_masks
from tests.benchmarks.bench_consortium import Field
from tests.fakes.coordinator_home import Hospital
from tests.fakes.scripted_site import ScriptedSite


@dataclass(frozen=True, slots=True)
class _Line:
    """What a scripted site needs of the world it lives in: a way to the coordinator."""

    address: str
    ca_pem: bytes

    def connect(self, hospital: Hospital) -> AbstractAsyncContextManager[CoordinatorClient]:
        """A client of a hospital."""

        @asynccontextmanager
        async def connected() -> AsyncIterator[CoordinatorClient]:
            async with await CoordinatorClient.connect(
                self.address, self.ca_pem, hospital.certificate_pem, hospital.tls_key_pem
            ) as client:
                yield client

        return connected()


@dataclass(eq=False)
class BenchSite(ScriptedSite):
    """A scripted site whose model and update have any length."""

    update: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    async def _hear(self, message: CoordinatorMessage) -> None:
        match message:
            case PrepareStudy(study_digest=digest) if digest == self.study.digest():
                prepared = StudyPrepared(
                    study_digest=digest,
                    model_digest=self.model.digest(),
                    parameter_count=self.model.vector.size,
                )
                await self._send(prepared)
            case SendInitialModel():
                await self.upload_model(self.model)
            case _:
                await super()._hear(message)

    def _mask(self, machine: secagg.Masking) -> RingVector:
        assert self.plan is not None
        values: dict[str, NDArray[Any]] = {lane.name: np.ones(lane.length) for lane in self.plan.layout.lanes}
        if LaneName.UPDATE in values:
            values[LaneName.UPDATE] = self.update
        vector = encode(values, self.plan.layout, machine.dither)
        apply_masks(vector, machine.masks)
        return vector


@asynccontextmanager
async def taking_part(found: Field, study: StudyFile, model: GlobalModel) -> AsyncIterator[Mapping[str, BenchSite]]:
    """All scripted hospitals of the field, connected and answering until the block ends."""
    update = np.random.default_rng(2).uniform(-1, 1, model.vector.size).astype(np.float32)
    line: Any = _Line(found.address, (found.home / "certificates" / "ca.pem").read_bytes())
    origin = open_home(found.home).config.log_origin
    sites = {
        name: BenchSite(
            world=line,
            hospital=hospital,
            study=study,
            model=model,
            update=update,
            witness=WitnessSigner(f"{origin}/witness/{name}", hospital.witness_key),
        )
        for name, hospital in found.hospitals.items()
    }
    tasks = [asyncio.create_task(site.run()) for site in sites.values()]
    try:
        yield sites
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, WireError):
                await task


def any_model(parameters: int) -> GlobalModel:
    """A first model of so many zeros, for consortia without an agent that builds a real one."""
    return GlobalModel((("layer.weight", (parameters,)),), np.zeros(parameters, np.float32))
