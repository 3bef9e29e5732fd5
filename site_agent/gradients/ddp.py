"""Several processes of one hospital compute one step's gradients together: torch.distributed, gloo, under torchrun.

    torchrun --standalone --nproc-per-node 4 -m site_agent run --home HOME

Rank 0 is the agent: it alone has the data, the keys, the ledger, the coins that sample patients, the generator of the
noise and the accountant. It deals the patients of a step's sample out among all ranks, never splitting one; every rank
clips and adds up its own, with the engine that was chosen; the sums are added up at rank 0 in float64. So there is one
sample, one noise and one count of steps, as with one process, and a helper could not spoil them if it wanted to: what
it sends is a sum that the hospital itself computes.

What travels: network names and numbers of a study as JSON, and tensors as they are. Nothing is unpickled. Records
travel too, unencrypted: on this machine, or on a network that is the hospital's own and trusted with them.

Every process computes on a GPU of its own where the agent's is one (`site_agent.device`). What travels and is added up
stays on the processor, by gloo: sums of float64, and nothing to keep apart from the way it is without a GPU.

A step is one exchange: it gives the whole sum or raises at rank 0. A rank that is lost ends all of them, and the
hospital is a dropout of that round, as if its one process had ended.
"""

import json
import threading
from contextlib import suppress
from dataclasses import fields
from datetime import timedelta
from typing import Any

import structlog
import torch
import torch.distributed as dist

from site_agent.device import PROCESSOR, compute_for
from site_agent.errors import TrainingFailed
from site_agent.gradients.admission import EngineChoice
from site_agent.gradients.engine import Batch, Engine, PatientSum, Tally
from site_agent.gradients.losses import loss_of
from site_agent.networks import build_from
from site_agent.training_spec import NetworkSpec

log = structlog.get_logger(__name__)

AGENT = 0
"""The rank that everything but gradients belongs to."""
PATIENCE = timedelta(days=365)
"""How long a helper waits for the next step; a rank that is gone is noticed at once, because its connection closes."""
_DISMISSED, _NETWORK, _STEP = 0, 1, 2
_HEADER = 7  # what, number of the network, batch's patients, own patients, own records, clip norm, training
_FAILED = 3  # place among the counts: patients, clipped, broken, failed

_one_exchange = threading.Lock()
_networks: list[bytes] = []  # those that helpers have built, by number; grows with the studies of this process


def join() -> int:
    """Meet the other processes that torchrun started; this one's rank.

    Raises:
        TrainingFailed: They cannot be reached.
    """
    torch.set_num_threads(1)  # before the first helper computes, as in the trainer
    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingFailed(
            f"the processes of this hospital did not meet: {str(error).partition(chr(10))[0]}"
        ) from error
    return dist.get_rank()


def dismiss() -> None:
    """Rank 0: the helpers may go home; one that has gone already is not missed any more."""
    with _one_exchange:
        with suppress(RuntimeError):
            for rank in _helpers():
                _send_header(rank, _DISMISSED)
        dist.destroy_process_group()
        _networks.clear()


def spread(engine: Engine, network: NetworkSpec, choice: EngineChoice) -> Engine:
    """The same engine, or where this process has helpers, one that computes with them."""
    return SpreadEngine(engine, network, choice) if dist.is_initialized() and dist.get_world_size() > 1 else engine


class SpreadEngine(Engine):
    """A rank 0's engine and those of its helpers."""

    def __init__(self, engine: Engine, network: NetworkSpec, choice: EngineChoice) -> None:
        super().__init__(engine.module, engine.loss)
        self.device = PROCESSOR  # of what is dealt out and added up
        self.name = engine.name  # type: ignore[misc] # of the instance: what a step is computed with
        self._engine = engine
        compute = choice.compute
        how = [choice.name, choice.records_max, compute.device.type, compute.precision]
        self._described = json.dumps([_fields_of(network), *how]).encode()

    def add(self, part: Batch, clip_norm_l2: float, tally: Tally) -> None:
        """Deal out, compute a share here, and add up; `part` is the whole batch."""
        if len(part.sizes) == 1:  # nothing to deal out
            found = self._engine.clipped_sum(part, clip_norm_l2)
            tally.total += torch.from_numpy(found.total)
            tally.clipped, tally.broken = tally.clipped + found.clipped, tally.broken + found.broken
            return
        with _one_exchange:
            total, counts = self._exchanged(dealt(part, dist.get_world_size()), clip_norm_l2)
        if counts[_FAILED]:
            raise TrainingFailed(f"{int(counts[_FAILED])} of this hospital's processes could not compute their share")
        if int(counts[0]) != len(part.sizes):
            raise TrainingFailed("this hospital's processes did not compute every patient of a step once")
        tally.total += total
        tally.clipped += int(counts[1])
        tally.broken += int(counts[2])

    def _exchanged(self, shares: list[Batch], clip_norm_l2: float) -> tuple[torch.Tensor, torch.Tensor]:
        number = self._known_to_helpers()
        patients = sum(len(share.sizes) for share in shares)
        for rank in _helpers():
            share = shares[rank]
            _send_header(
                rank, _STEP, number, patients, len(share.sizes), len(share.features), clip_norm_l2,
                int(self.module.training),
            )  # fmt: skip
            dist.send(weights_of(self.module), rank)
            if share.sizes:
                for tensor in (torch.tensor(share.sizes), share.features, share.labels):
                    dist.send(tensor.contiguous(), rank)
        return _added_up(self._engine, shares[AGENT], clip_norm_l2, patients)

    def _known_to_helpers(self) -> int:
        """The number of this network at the helpers, which build it when it is first needed."""
        if self._described not in _networks:
            for rank in _helpers():
                _send_header(rank, _NETWORK, len(self._described))
                dist.send(torch.frombuffer(bytearray(self._described), dtype=torch.uint8), rank)
            _networks.append(self._described)
        return _networks.index(self._described)


def serve() -> None:
    """A helper's life: build the networks that are named, compute shares, until dismissed.

    Raises:
        TrainingFailed: The agent is gone without a word.
    """
    try:
        _serve()
    except RuntimeError as error:  # what gloo raises when a connection closes
        raise TrainingFailed("the agent that this process helped is gone") from error


def _serve() -> None:
    known: list[tuple[NetworkSpec, Engine]] = []
    header = torch.zeros(_HEADER, dtype=torch.float64)
    while True:
        dist.recv(header, AGENT)
        what, number, patients, own, records, clip_norm_l2, training = header.tolist()
        if what == _DISMISSED:
            dist.destroy_process_group()
            return
        if what == _NETWORK:
            known.append(_received_engine(int(number)))
            continue
        network, engine = known[int(number)]
        share = _received_share(network, engine, int(own), int(records))
        engine.module.train(bool(training))
        _added_up(engine, share, clip_norm_l2, int(patients))


def dealt(batch: Batch, ranks: int) -> list[Batch]:
    """A batch in `ranks` runs of patients with about the same number of records; some may be empty."""
    shares, first, start, seen = [], 0, 0, 0
    sizes = batch.sizes
    for rank in range(1, ranks + 1):
        last, stop = first, start
        while last < len(sizes) and (rank == ranks or seen + sizes[last] / 2 <= rank * len(batch.features) / ranks):
            stop, seen, last = stop + sizes[last], seen + sizes[last], last + 1
        shares.append(
            Batch(features=batch.features[start:stop], labels=batch.labels[start:stop], sizes=sizes[first:last])
        )
        first, start = last, stop
    return shares


def weights_of(module: torch.nn.Module) -> torch.Tensor:
    """Every parameter, trained or not, as float32[values] on the processor."""
    return torch.cat([parameter.detach().flatten().cpu() for parameter in module.parameters()])


def _added_up(engine: Engine, share: Batch, clip_norm_l2: float, patients: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute a share and add all of them up at rank 0; whoever fails takes part in the exchange all the same."""
    counts = torch.zeros(4, dtype=torch.int64)
    try:
        found = engine.clipped_sum(share, clip_norm_l2, batch_patients=patients)
    except Exception as error:  # noqa: BLE001 - the others wait for this rank, whatever happened to it
        log.warning("gradients.failed", error=type(error).__name__)
        counts[_FAILED] = 1
        total = torch.zeros(engine.dimension, dtype=torch.float64)
    else:
        total, counts[:_FAILED] = torch.from_numpy(found.total), _counts_of(found)
    dist.reduce(total, AGENT)
    dist.reduce(counts, AGENT)
    return total, counts


def _fields_of(network: NetworkSpec) -> dict[str, object]:
    """What `NetworkSpec` is built from, for JSON. A helper gets every weight with each step: it needs no file."""
    adapter = None if network.adapter is None else dict(network.adapter)
    named = {field.name: getattr(network, field.name) for field in fields(network)}
    return named | {"args": dict(network.args), "adapter": adapter, "initial": None}


def _with_tuples(value: Any) -> Any:
    """What came as JSON, with the tuples that a study's arguments have."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(_with_tuples(each) for each in value) if isinstance(value, list) else value


def _counts_of(found: PatientSum) -> torch.Tensor:
    return torch.tensor([found.patients, found.clipped, found.broken])


def _received_engine(length: int) -> tuple[NetworkSpec, Engine]:
    given = torch.zeros(length, dtype=torch.uint8)
    dist.recv(given, AGENT)
    described, name, records_max, device, precision = json.loads(bytes(given.numpy()))
    network = NetworkSpec(**_with_tuples(described))
    choice = EngineChoice(name=name, records_max=records_max, compute=compute_for(device, precision))
    return network, choice.build(build_from(network), loss_of(network))


def _received_share(network: NetworkSpec, engine: Engine, patients: int, records: int) -> Batch:
    weights = weights_of(engine.module)
    dist.recv(weights, AGENT)
    place = 0
    with torch.no_grad():
        for parameter in engine.module.parameters():
            parameter.copy_(weights[place : place + parameter.numel()].reshape(parameter.shape))
            place += parameter.numel()
    sizes = torch.zeros(patients, dtype=torch.int64)
    features = torch.zeros(records, *network.input_shape)
    labels = torch.zeros(records, *network.label_shape)
    if patients:
        for tensor in (sizes, features, labels):
            dist.recv(tensor, AGENT)
    return Batch(features=features, labels=labels, sizes=tuple(sizes.tolist()))


def _send_header(rank: int, what: int, *numbers: float) -> None:
    header = torch.zeros(_HEADER, dtype=torch.float64)
    header[: 1 + len(numbers)] = torch.tensor([what, *numbers], dtype=torch.float64)
    dist.send(header, rank)


def _helpers() -> range:
    return range(1, dist.get_world_size())
