"""How many hospitals must have cosigned the log before a study goes on, and before its model is released.

Log format section 9; audit-log quorum arithmetic in `audit.policy`. Without a section `witnesses` in a study nobody is
assumed to lie, and a majority of its hospitals witnesses.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated

from annotated_types import Ge, Le, MaxLen
from pydantic import AfterValidator

from consortium.contract.errors import shown
from consortium.contract.schema import Finding, Refused, Section, Words

COSIGNATURES_MAX = 99
"""A note has at most a hundred signature lines, and one is the log's: of more hospitals than that so many witness."""


_VKEY = re.compile(r"[!-*,-~]{3,200}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}")


def _witness_key(text: str) -> str:
    if _VKEY.fullmatch(text) is None:
        raise Refused
    return text


OutsideKey = Annotated[
    str,
    AfterValidator(_witness_key),
    Words("the key of a witness as C2SP writes it: NAME+8 hexadecimal digits+base64"),
]


class Witnessing(Section):
    """Whose word is needed that everybody sees the same log."""

    lying: Annotated[int, Ge(0), Le(128)] = 0  # so many of the hospitals' witnesses may be in league with the log
    outside: Annotated[tuple[OutsideKey, ...], MaxLen(8)] = ()  # witnesses that are no hospitals; each must cosign


def cosignatures_needed(sites: int, lying: int) -> int:
    """Two histories cannot both have so many of the witnesses, while at most `lying` of them lie: (n + f) // 2 + 1."""
    return min((sites + lying) // 2 + 1, COSIGNATURES_MAX)


def enough_witnesses(required: Sequence[str], threshold: int, witnesses: Witnessing | None) -> Iterator[Finding]:
    """A study whose quorum is larger than its threshold would wait for hospitals that a round can do without."""
    if witnesses is None:
        return
    needed = cosignatures_needed(len(required), witnesses.lying)
    if needed > threshold:
        yield Finding(
            "witnesses.lying",
            shown(witnesses.lying),
            f"a number for which {needed} of {len(required)} cosignatures are not more than aggregation.threshold,"
            f" {threshold}",
        )
