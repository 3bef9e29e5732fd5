"""What the processes of a benchmark do otherwise than the product's: training takes no time, masks can be left out.

    python -m tests.benchmarks.bench_process coordinator FOLDER [--plain-even-rounds]
    python -m tests.benchmarks.bench_process hospital FOLDER [--plain-even-rounds] [--count-sent]
        [--train [--keep-update]]

Everything else is the real program: this file replaces three functions in its own process and then calls the same
`main` that the command lines call. Only a process that was started with this file can leave masks out; no study, no
site.yaml and no option of `consortium` or `site-agent` can.

Both kinds write FOLDER/marks.jsonl, a line whenever an attempt begins and whenever the coordinator goes over to another
phase: round, phase, the clock, this process' CPU time, and how often masks were left out so far. A hospital that counts
what it sends writes FOLDER/sent.jsonl, a line for every message it encodes: round, kind, bytes.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from privacy.secagg import coordinator, masks, site  # noqa: E402 - the path is set above; before whatever imports from these


class Marks:
    """What is written down about this process. Mutable: it knows the round that is under way."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self.round = 0
        self.left_out = 0

    def write(self, phase: str) -> None:
        """One line, now."""
        line = {
            "round": self.round,
            "phase": phase,
            "clock_s": time.monotonic(),
            "cpu_s": time.process_time(),
            "left_out": self.left_out,
        }
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """No more lines come."""
        self._file.close()


def mark_rounds(machine: Any, marks: Marks) -> None:
    """Have a machine, the site's or the coordinator's, say when an attempt begins and when its phase changes."""
    begin, step = machine.begin, machine.step

    def begin_and_mark(context: Any, *arguments: Any, **options: Any) -> Any:
        marks.round = context.round
        marks.write("begin")
        return begin(context, *arguments, **options)

    def step_and_mark(state: Any, event: Any) -> Any:
        after = step(state, event)
        if type(after[0]) is not type(state):
            marks.write(type(after[0]).__name__)
        return after

    machine.begin, machine.step = begin_and_mark, step_and_mark


def leave_masks_out_in_even_rounds(marks: Marks) -> None:
    """Replace the one method that puts masks on and takes them off, in this process."""
    apply = masks.MaskStreams.apply

    def apply_or_not(self: masks.MaskStreams, stretch: Any) -> None:
        if marks.round % 2 == 0:
            marks.left_out += 1
        else:
            apply(self, stretch)

    masks.MaskStreams.apply = apply_or_not  # type: ignore[method-assign]


def count_sent(marks: Marks, path: Path) -> None:
    """Write down the size of every message this process encodes for the wire, whatever it is part of."""
    from consortium.wire import codec  # noqa: PLC0415 - after the replacements above

    lines = path.open("a", buffering=1)

    def counted(name: str, kind_of: Any) -> None:
        encode = getattr(codec, name)

        def encode_and_count(*arguments: Any) -> bytes:
            data: bytes = encode(*arguments)
            line = {"round": marks.round, "kind": kind_of(*arguments), "size_bytes": len(data)}
            lines.write(json.dumps(line) + "\n")
            return data

        setattr(codec, name, encode_and_count)

    counted("encode_site_message", lambda message: _dashed(type(message).__name__))
    counted("encode_vector_header", lambda header: f"{header.kind}-header")
    counted("encode_chunk", lambda _: "masked-update")
    counted("encode_vector_request", lambda *_: "vector-request")
    counted("encode_events", lambda _: "events")


def _dashed(name: str) -> str:
    """KeyBundle -> key-bundle."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("-")


def train_nothing() -> None:
    """Replace training by a vector that is there already. The signed entry about its cost is made all the same."""
    from audit import entries  # noqa: PLC0415 - torch is loaded by what follows
    from site_agent import room_in_process  # noqa: PLC0415
    from site_agent.agent import Agent  # noqa: PLC0415
    from site_agent.gradients.admission import EngineChoice  # noqa: PLC0415
    from site_agent.round_values import RoundValues  # noqa: PLC0415

    assert hasattr(RoundValues, "_update_for")
    assert hasattr(room_in_process, "engine_for")
    # No gradient is computed, so no engine is tried for it either, and no process is started.
    setattr(room_in_process, "engine_for", lambda _spec, _wanted, _compute: EngineChoice(name="loop"))  # noqa: B010
    defaults = Agent.__init__.__kwdefaults__
    assert defaults is not None
    assert "rooms" in defaults
    defaults["rooms"] = room_in_process.RoomInProcess
    made: dict[int, NDArray[np.float32]] = {}

    async def update_for(self: Any, plan: Any, model: Any, _policy: Any) -> NDArray[np.float32]:
        size = model.vector.size
        if size not in made:
            # This process' own, so that no two sites send the same; worked on in place, as the only copy there is.
            made[size] = np.random.default_rng(os.getpid()).random(size, dtype=np.float32)
            made[size] *= 2
            made[size] -= 1
        await asyncio.to_thread(
            self._events.add,
            entries.DpSpent,
            study=plan.study,
            round=plan.round,
            attempt=plan.attempt,
            dataset=self._prepared.dataset,
            event=entries.PoissonSampledGaussian(noise_multiplier=1.0, sampling_rate=0.1, steps=1),
            epsilon=0.001 * plan.round,
            delta=1e-3,
            steps_total=plan.round,
        )
        return made[size]

    setattr(RoundValues, "_update_for", update_for)  # noqa: B010 - a method is replaced on purpose


def keep_update(folder: Path) -> None:
    """Write down what training gives, before it is encoded and masked, and which model it started from."""
    from site_agent.round_values import RoundValues  # noqa: PLC0415 - torch is loaded by it

    train = RoundValues._train

    def train_and_keep(self: Any, plan: Any, model: Any, policy: Any) -> Any:
        began = time.monotonic()
        update = train(self, plan, model, policy)
        fact = {"model": model.digest(), "seconds": time.monotonic() - began}
        np.save(folder / "update.npy", update)
        (folder / "trained.json").write_text(json.dumps(fact))
        return update

    setattr(RoundValues, "_train", train_and_keep)  # noqa: B010 - a method is replaced on purpose


def main() -> None:
    """Become a coordinator or a hospital."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("role", choices=("coordinator", "hospital"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plain-even-rounds", action="store_true", help="no masks in rounds 2, 4, 6 ...")
    parser.add_argument("--count-sent", action="store_true", help="write down the size of every message")
    parser.add_argument("--train", action="store_true", help="train for real")
    parser.add_argument("--keep-update", action="store_true", help="write the update down before it is masked")
    options = parser.parse_args()
    marks = Marks(options.folder / "marks.jsonl")
    mark_rounds(coordinator if options.role == "coordinator" else site, marks)
    if options.plain_even_rounds:
        leave_masks_out_in_even_rounds(marks)
    if options.count_sent:
        count_sent(marks, options.folder / "sent.jsonl")
    if options.role == "coordinator":
        from consortium.entry import main as run  # noqa: PLC0415 - what it imports is replaced above

        sys.argv = ["consortium", "serve", "--home", str(options.folder)]
    else:
        if not options.train:
            train_nothing()
        if options.keep_update:
            keep_update(options.folder)
        from site_agent.entry import main as run  # noqa: PLC0415

        sys.argv = ["site-agent", "run", "--home", str(options.folder)]
    run()


if __name__ == "__main__":
    main()
