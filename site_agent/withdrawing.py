"""`site-agent patients withdraw`: read who withdrew from a file, remember marks of them, sign that it happened.

Identifiers are in memory while this runs and nowhere else: not in a log, an error's words, an argument or a file.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from consortium.contract.names import Digest
from site_agent.calls import hand_over
from site_agent.errors import SiteError
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.left_out import withdrawn_at
from site_agent.patient_marks import identifiers_in, marks_of
from site_agent.signed_events import SignedEvents
from site_agent.store import Store
from site_agent.withdrawal_rows import Withdrawal
from site_agent.withdrawals import key_id, marks_under, recognition_key

LIST_BYTES_MAX, IDENTIFIER_CHARACTERS_MAX = 16 * 2**20, 200
WITHDRAWN_MAX = 100_000
"""Patients who withdrew at a hospital: each one a mark that goes to the process that reads the cohort."""
OVERLAYS = "overlays"


class ListRefused(SiteError):
    """The file of identifiers cannot be used; its words name lines, never what is in them."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Give a text file in UTF-8 with one identifier per line, as the data spell it; nothing was changed."


class DatasetUnknown(SiteError):
    """A dataset that site.yaml does not have."""

    code = "not_found"

    def advice(self) -> str:
        """What to do next."""
        return "Name a dataset of site.yaml; nothing was changed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of it, for the terminal of the hospital."""

    found: int  # of the identifiers, how many any dataset has or had
    unknown: int  # the others
    studies: tuple[str, ...]  # whose cohorts they are or were in
    told: bool  # whether the coordinator has the entries already


def read_identifiers(path: Path) -> tuple[str, ...]:
    """The identifiers of a file, or of standard input for `-`; raises ListRefused."""
    try:
        if str(path) == "-":
            raw = sys.stdin.buffer.read(LIST_BYTES_MAX + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(LIST_BYTES_MAX + 1)
    except OSError as error:
        raise ListRefused(f"the list cannot be read: {error.strerror}") from error
    if len(raw) > LIST_BYTES_MAX:
        raise ListRefused(f"the list has more than {LIST_BYTES_MAX} bytes")
    try:
        lines = [line.strip() for line in raw.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ListRefused("the list is not UTF-8") from error
    long = [number for number, line in enumerate(lines, 1) if len(line) > IDENTIFIER_CHARACTERS_MAX]
    if long:
        raise ListRefused(f"line {long[0]} has more than {IDENTIFIER_CHARACTERS_MAX} characters")
    found = tuple(dict.fromkeys(line for line in lines if line))
    if not found:
        raise ListRefused("the list is empty")
    return found


async def withdraw(home: AgentHome, store: Store, ledger: Ledger, dataset: str, identifiers: tuple[str, ...]) -> Done:
    """Leave these patients out from the next round on, and tell the log that somebody withdrew.

    Their marks are durable before this returns. What was spent on them stays spent.

    Args:
        home: The agent's home.
        store: What it remembers.
        ledger: The datasets that ever had them.
        dataset: The dataset that the hospital names; the same identifiers count in its other datasets too.
        identifiers: Who, as the data spell it.

    Raises:
        DatasetUnknown, ListRefused, WithdrawalsUnreadable: Nothing was changed.
    """
    config = home.config
    if dataset not in config.datasets:
        raise DatasetUnknown(f"site.yaml has no dataset {dataset!r}; it has {', '.join(config.datasets)}")
    before = withdrawn_at(home, store)  # marks under two keys could not all be recognised
    if len(before.marks) + len(identifiers) > WITHDRAWN_MAX:
        raise ListRefused(f"more than {WITHDRAWN_MAX} patients in all: take some out of the data themselves")
    wanted = set(identifiers)
    affected = set(ledger.had(marks_of(identifiers, home.long_term_secret)))
    found: set[str] = set()
    for name, one in config.datasets.items():
        here = wanted.intersection(identifier.strip() for identifier in identifiers_in(one))
        if here:
            affected.add(name)
            found |= here
    digests: list[Digest] = []
    concerned: list[tuple[str, str]] = []
    for decision in store.decisions():
        its = config.studies.get(decision.study)
        if its in affected and decision.decision != "rejected":
            digests.append(decision.study_digest)
            concerned.append((decision.study, its))
    key = recognition_key(home.long_term_secret)
    made = Withdrawal(
        dataset=dataset,
        at=time.time(),
        key_id=key_id(key),
        marks=marks_under(identifiers, key),
        studies=tuple(digests),
    )
    concerned = sorted(set(concerned))
    SignedEvents(home, store).withdraw(made, concerned)
    # What was made of images: nobody can tell whose an entry is, and all of it can be made again.
    home.images.clear()
    _clear(home.folder / OVERLAYS)
    told = await hand_over(home, store) if concerned else True
    studies = tuple(study for study, _ in concerned)
    return Done(found=len(found), unknown=len(wanted - found), studies=studies, told=told)


def _clear(folder: Path) -> None:
    """Remove the files below a folder, if it is there."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)
