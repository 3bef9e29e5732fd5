"""What sections R2, R11 and R13 say of those who watch: signs of life, silences, and who objected to the log."""

from collections.abc import Iterator, Sequence

from audit import entries
from audit.heartbeats import Gap
from audit.report.blocks import by, counted, duration, moment, paragraph, remark, table
from audit.report.document import Block, Callout, Cell, Inline, LeafRef, cell
from audit.report.figures import Report, SiteLife

GAPS_MAX = 20
"""Of the times without a sign of life: the longest."""


def life(report: Report) -> Iterator[Block]:
    """Signs of life: the coordinator's, each hospital's, and the times that none covers."""
    own = report.heartbeats
    if own is None:
        yield remark("The coordinator wrote no signs of life: a silence of this log cannot be told from a quiet time.")
    else:
        yield paragraph(
            f"{counted(own.count, 'sign', 'signs')} of life of the coordinator ",
            LeafRef(index=own.first_leaf),
            *((" to ", LeafRef(index=own.last_leaf)) if own.count > 1 else ()),
            f"; {counted(len(own.gaps), 'time', 'times')} that none of them covers.",
        )
    concerned = {site.site for site in report.sites}
    lives = [one for one in report.site_life if one.site in concerned]
    if lives:
        yield table(
            "Hospital",
            ">Signs of life",
            "Last (UTC)",
            ">Times uncovered",
            ">Coordinator's clock ahead by",
            rows=[_row(one) for one in lives],
            weights=(1.6, 1, 1.4, 1, 1.4),
        )
    quiet = sorted(concerned - {one.site for one in lives})
    if quiet:
        yield remark(f"No sign of life by: {', '.join(quiet)}. Of them a silence cannot be told from a quiet time.")
    found = [*(own.gaps if own is not None else ()), *(gap for one in lives for gap in one.gaps)]
    if found:
        yield _gaps(found)


def _row(one: SiteLife) -> tuple[Cell, ...]:
    ahead = one.clock_ahead_ms
    said = "not seen" if ahead is None or ahead <= 0 else f"{ahead / 1000:.1f} s"
    leaves = (one.first_leaf, one.last_leaf) if one.count > 1 else (one.first_leaf,)
    return (
        cell(one.site),
        cell(str(one.count), leaves=leaves),
        cell(f"{moment(one.last_ts)}, {one.last_state}"),
        cell(str(len(one.gaps))),
        cell(said),
    )


def _gaps(found: Sequence[Gap]) -> Block:
    longest = sorted(found, key=lambda gap: -abs(gap.seconds))[:GAPS_MAX]
    return table(
        "Who",
        ">How long",
        "From (UTC)",
        "How",
        rows=[
            (
                cell(gap.who),
                cell(duration(abs(gap.seconds))),
                cell(
                    moment(gap.since),
                    leaves=[leaf for leaf in (gap.after_leaf, gap.before_leaf) if leaf is not None],
                ),
                cell(gap.how.value),
            )
            for gap in longest
        ],
    )


def objections(report: Report) -> tuple[tuple[int, entries.LogOmission | entries.WitnessRefused], ...]:
    """Leaf and entry of everybody who said that the log is not what it should be."""
    return tuple(
        (leaf, entry) for leaf, entry in report.facts if isinstance(entry, entries.LogOmission | entries.WitnessRefused)
    )


def objections_blocks(report: Report) -> Iterator[Block]:
    """What they said, for R11; nothing where nobody did."""
    rows = objections(report)
    if rows:
        yield table(
            "Objection",
            "When (UTC)",
            "By",
            "What it says",
            rows=[
                (cell(leaves=(leaf,)), cell(moment(entry.ts)), cell(by(entry)), cell(_words(entry)))
                for leaf, entry in rows
            ],
            weights=(0.6, 1.2, 1.4, 4),
        )


def objections_callout(report: Report) -> Iterator[Block]:
    """The same in short, beside how to verify, for R13."""
    rows = objections(report)
    if rows:
        yield Callout(title="Somebody objected to this log", items=tuple(_short(leaf, entry) for leaf, entry in rows))


def _short(leaf: int, entry: entries.LogOmission | entries.WitnessRefused) -> tuple[Inline, ...]:
    if isinstance(entry, entries.LogOmission):
        said = f"The hospital {by(entry)} said that an entry of its own was left out "
    elif entry.actor == entries.COORDINATOR:
        said = f"The witness {entry.witness} did not cosign "
    else:
        said = f"The hospital {by(entry)} did not cosign "
    return (said, LeafRef(index=leaf))


def _words(entry: entries.LogOmission | entries.WitnessRefused) -> str:
    if isinstance(entry, entries.LogOmission):
        return (
            f"its entry {entry.missing_seq}, taken in by the coordinator, was not among the first"
            f" {counted(entry.checkpoint_size, 'entry', 'entries')}"
        )
    remembered = "" if entry.witness_size is None else f"; it had cosigned {entry.witness_size}"
    shown = "shown by a checkpoint that the log's key signed" if entry.basis == "checkpoint" else "by its own word"
    return (
        f"{entry.witness} does not cosign a checkpoint of {counted(entry.checkpoint_size, 'entry', 'entries')}"
        f"{remembered}: {entry.rule} (status {entry.status}, {shown})"
    )
