"""The shell around `witnesses.py`: hold a checkpoint out to whoever is connected, and ask outside witnesses for theirs.

One small task of a serving coordinator. Nothing waits for it but what asks for a quorum. And `look_back`, before that:
what witnesses remember of the log, asked before this process signs anything.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog

from audit import entries
from audit.checkpoint import SignedCheckpoint, parse_checkpoint
from audit.errors import LogSetBack, VerificationError
from audit.note import Note
from consortium.contract.messages import CheckpointReady, LogPosition
from consortium.coordinator_file import OutsideWitness
from consortium.errors import ConsortiumError
from consortium.outside_witness import WitnessIsAhead, WitnessRefused, cosign, shown
from consortium.record import now_stamp
from consortium.rooms import Rooms
from consortium.witnesses import Candidate

log = structlog.get_logger(__name__)

LOOK_S = 0.25
START_S = 35.0
"""How long a start waits for hospitals that are away: an agent that lost its coordinator dials every 30 seconds."""
OUTSIDE_S = 5.0
"""And for an outside witness: one that gives no answer must not keep a consortium from starting."""


async def hold_out(rooms: Rooms, outside: Sequence[OutsideWitness]) -> None:
    """Go on until cancelled."""
    held_out = 0
    asked: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            keys = await asyncio.to_thread(rooms.witnesses.keys)
            candidate = rooms.witnesses.candidate(rooms.sessions.connected() & keys.keys())
            if candidate is not None and candidate.size != held_out:
                held_out = candidate.size
                for site in rooms.sessions.connected():
                    session = rooms.sessions.get(site)
                    if session is not None:
                        session.send(CheckpointReady(size=held_out))
                for one in outside:
                    if one.key.name not in asked or asked[one.key.name].done():
                        asked[one.key.name] = asyncio.create_task(_ask(rooms, one, candidate))
            await asyncio.sleep(LOOK_S)
    finally:
        for task in asked.values():
            task.cancel()
        await asyncio.gather(*asked.values(), return_exceptions=True)


async def _ask(rooms: Rooms, witness: OutsideWitness, candidate: Candidate) -> None:
    name = witness.key.name
    log_as_written = rooms.recorder.written
    try:
        answer = await cosign(
            witness,
            old=rooms.witnesses.covered_by(name),
            proof_of=log_as_written.consistency_proof,
            note=candidate.signed.to_bytes(),
        )
    except (WitnessRefused, WitnessIsAhead) as error:
        log.warning("witness.refused", witness=name, reason=str(error), advice=error.advice())
        await _write_down(rooms, witness, candidate.signed, error)
        return
    except ConsortiumError as error:
        log.warning("witness.not_asked", witness=name, reason=str(error), advice=error.advice())
        return
    note = Note(text=candidate.signed.note.text, signatures=(*candidate.signed.note.signatures, answer.signature))
    with suppress(ConsortiumError):  # verified a moment ago
        await asyncio.to_thread(rooms.witnesses.admit_line, name, witness.key, note.to_bytes())
    rooms.sessions.notify()


async def _write_down(
    rooms: Rooms, witness: OutsideWitness, signed: SignedCheckpoint, error: WitnessRefused | WitnessIsAhead
) -> None:
    """A refusal, in the log and in the status; what the witness can prove stops the log besides."""
    basis = "word"
    try:
        await require_not_proven(rooms, witness)
    except LogSetBack:
        basis = "checkpoint"
    entry = entries.WitnessRefused(
        **now_stamp(),
        witness=witness.key.name,
        rule=error.reason,
        status=error.status,
        checkpoint_size=signed.checkpoint.size,
        checkpoint_root=signed.checkpoint.root.hex(),
        witness_size=error.remembered,
        basis=basis,
    )
    data = entries.entry_bytes(entry)
    await asyncio.to_thread(rooms.witnesses.refused, witness.key.name, error.status, error.reason, data)
    rooms.sessions.notify()


async def require_not_proven(rooms: Rooms, witness: OutsideWitness) -> None:
    """Ask a witness that refused for its checkpoint, and hold that against the log.

    A number in an answer is a witness's word, and stops nothing. A checkpoint that this log's own key signed, over more
    entries than the log has or over others, stops it for good.

    Raises:
        LogSetBack: It has such a checkpoint.
    """
    try:
        note = await shown(witness, rooms.recorder.written.origin)
        position = LogPosition(size=parse_checkpoint(note).checkpoint.size, note=note)
        await asyncio.to_thread(rooms.witnesses.require_not_set_back, witness.key.name, position)
    except (VerificationError, ConsortiumError) as error:
        log.warning("witness.shows_nothing", witness=witness.key.name, reason=str(error))


# --- at a start ------------------------------------------------------------------------------------------------------


async def look_back(rooms: Rooms, outside: Sequence[OutsideWitness]) -> None:
    """Hold the log against what witnesses remember of it, before this process signs anything.

    Outside witnesses are asked; hospitals show their memory when they connect. It is enough to hear so many hospitals
    that no majority of them can have cosigned a checkpoint without one that was heard: half of them. Who is away for
    `START_S` is not waited for, and is heard when it comes back.

    Raises:
        LogSetBack: The log is older than what somebody can show, or another.
    """
    await asyncio.gather(*(_look_back_to(rooms, one) for one in outside))
    deadline = time.monotonic() + START_S
    while (stopped := rooms.recorder.written.stopped) is None:
        known = {site.site for site in rooms.sites.standing() if not site.revoked} & rooms.witnesses.keys().keys()
        if 2 * len(rooms.witnesses.heard & known) >= len(known):
            return
        if time.monotonic() >= deadline:
            log.warning("witnesses.not_heard", hospitals=len(known - rooms.witnesses.heard))
            return
        await asyncio.sleep(LOOK_S / 5)
    raise stopped


async def _look_back_to(rooms: Rooms, witness: OutsideWitness) -> None:
    signed = rooms.recorder.latest()  # signed before; what the witness makes of it is asked again with the next one
    proofs = rooms.recorder.written.consistency_proof
    try:
        async with asyncio.timeout(OUTSIDE_S):
            try:
                await cosign(witness, old=0, proof_of=proofs, note=signed.to_bytes())
            except (WitnessRefused, WitnessIsAhead) as error:
                log.warning("witness.refused", witness=witness.key.name, reason=str(error), advice=error.advice())
                await require_not_proven(rooms, witness)
    except (ConsortiumError, TimeoutError) as error:
        log.warning("witness.not_asked", witness=witness.key.name, reason=str(error) or "no answer in time")
