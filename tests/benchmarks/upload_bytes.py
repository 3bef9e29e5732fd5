"""Every byte one site sends for one round, as protobuf messages: a real agent among ten sites, a million parameters.

Counted where messages are encoded (`bench_process.py --count-sent`), so that nothing is left out: the masked update
with its header and chunk frames, confirmation, shares, signed events, requests. Key bundle and sealed shares travel
while the site trains, and are printed beside it. The frames of HTTP/2 and TLS (31 bytes for 16 KiB) are not counted.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from consortium.contract.global_model import GlobalModel
from tests.benchmarks.bench_consortium import BenchFailed, Field, consortium
from tests.benchmarks.bench_study import MILLION, bench_study
from tests.benchmarks.figures import Figure
from tests.benchmarks.scripted_hospitals import taking_part

SITES = 10
ROUND = 2  # the first round carries metrics and what begins a study
DURING_TRAINING = frozenset({"key-bundle", "sealed-shares"})
WAIT_S = 120.0


def measure(*, parameters: int = MILLION, sites: int = SITES) -> list[Figure]:
    """One figure."""
    sent = asyncio.run(_sent(parameters, sites))
    after = {kind: count for kind, count in sent.items() if kind not in DURING_TRAINING}
    before = {kind: count for kind, count in sent.items() if kind in DURING_TRAINING}
    note = (
        f"{sum(after.values()):,} bytes after training ({_listed(after)}); while it trains {sum(before.values()):,} "
        f"({_listed(before)}); together {sum(sent.values()) / parameters:.4f} bytes per parameter; n = {sites}"
    )
    return [
        Figure(
            name="upload_bytes_per_parameter",
            value=sum(after.values()) / parameters,
            unit="bytes sent after training / parameters",
            reference=4.1,
            better="at most",
            note=note,
        )
    ]


async def _sent(parameters: int, sites: int) -> Counter[str]:
    """Kind of message -> bytes, of the agent in `ROUND`."""
    agent, *others = (f"site-{number:02}" for number in range(1, sites + 1))
    study = bench_study("bytes", [agent, *others], parameters=parameters, rounds=ROUND)
    async with consortium(study, agents=(agent,), scripted=others, count_sent=True) as field:
        deadline = time.monotonic() + WAIT_S
        await field.start(study.id)
        model = await _first_model(field, field.folder / agent / "models", deadline)
        async with taking_part(field, study, model):
            # The agent has said all about a round before it is invited to the next one.
            while not any(line.round > ROUND for line in sent_lines(field.folder / agent)):
                await _pause(field, deadline)
            return totals(sent_lines(field.folder / agent), ROUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A line of an agent's sent.jsonl."""

    round: int
    kind: str
    size_bytes: int


def sent_lines(folder: Path) -> list[Sent]:
    """What the agent has written down about what it sent."""
    path = folder / "sent.jsonl"
    text = path.read_text() if path.exists() else ""
    return [Sent(**json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def totals(lines: Sequence[Sent], number: int) -> Counter[str]:
    """Kind of message -> bytes, in one round."""
    found: Counter[str] = Counter()
    for line in lines:
        if line.round == number:
            found[line.kind] += line.size_bytes
    return found


async def _first_model(field: Field, folder: Path, deadline: float) -> GlobalModel:
    """The model the agent has built from the study, which the scripted sites say they have built too."""
    while not (files := _models(folder)):
        await _pause(field, deadline)
    return GlobalModel.from_safetensors(files[0])


def _models(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("*.safetensors")]


async def _pause(field: Field, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise BenchFailed(f"the rounds took too long:\n{field.said('coordinator')}")
    await asyncio.sleep(0.1)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))
