"""Of section R12: what people said beside the log, where an entry commits to it, and what of it was erased since.

A commitment shows nobody what was said. Whoever recorded it can show it (log format section 12); once it is erased
nobody can, and the entry and every proof of it stay as they are.
"""

from collections.abc import Iterator

from audit.declarations import DECLARED
from audit.entries import Declaration, ErasureExecuted
from audit.erasure import COMMITMENTS
from audit.report.blocks import ROWS_MAX, by, moment, remark, table
from audit.report.document import Block, Cell, Heading, cell, code
from audit.report.figures import Report

_SHOWN = 16


def payload_blocks(report: Report) -> Iterator[Block]:
    """A table of payloads, or nothing where no entry commits to one."""
    gone = {
        commitment: (leaf, entry)
        for leaf, entry in report.of(ErasureExecuted.TYPE)
        if isinstance(entry, ErasureExecuted)
        for commitment in entry.commitments or ()
    }
    rows: list[tuple[Cell, ...]] = []
    for leaf, entry in report.of(*DECLARED):
        assert isinstance(entry, Declaration)
        for field in COMMITMENTS:
            commitment = getattr(entry, field)
            if commitment is not None:
                erased = gone.get(commitment)
                rows.append(
                    (
                        cell(leaves=(leaf,)),
                        cell(entry.TYPE),
                        cell(field.partition("_")[0]),
                        cell(code(f"{commitment[:_SHOWN]}\u2026")),
                        cell(f"kept by {by(entry)}")
                        if erased is None
                        else cell(f"erased on {moment(erased[1].ts)}", leaves=(erased[0],)),
                    )
                )
    if not rows:
        return
    yield Heading(text="Kept beside the log")
    yield table("Leaf", "Entry", "What", "Commitment", "State", rows=rows[:ROWS_MAX], weights=(0.5, 1.9, 1, 1.7, 2.2))
    if len(rows) > ROWS_MAX:
        yield remark(f"{len(rows) - ROWS_MAX} more are in events.ndjson.")
    yield remark(
        "A commitment is a salted hash: it shows nothing, until whoever kept the words shows them and the salt. What "
        "is disclosed with this evidence lies in its folder payloads. Of what was erased, key and salt are destroyed: "
        "that is a statement of whoever erased it, and no copy elsewhere is ruled out."
    )
