"""What can happen to an attempt at one round: the events that `training_round.py` steps over and the journal keeps.

They stand apart from the machine because a coordinator between studies reads and writes no more than these: the
machine and its cryptography are loaded when a study runs.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from consortium.contract.messages import Refusal
from consortium.contract.names import SiteId
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    Confirmation,
    KeyBundle,
    SealedShares,
    UnmaskShares,
    UploadHeader,
)


class Phase(StrEnum):
    """Where the attempt is, in the words of the log and of `consortium status`."""

    COMMITTING = "committing"  # 10.1, in groups only
    REVEALING = "revealing"  # 10.2, in groups only
    INVITING = "inviting"  # 4.0, key bundles
    KEYING = "keying"  # 4.1, sealed shares
    COLLECTING = "collecting"  # 4.2, training and masked updates
    CONFIRMING = "confirming"  # 4.3
    UNMASKING = "unmasking"  # 4.4


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageArrived:
    """A secure-aggregation message, under the certificate of `site`."""

    site: SiteId
    message: BeaconCommitment | BeaconReveal | KeyBundle | SealedShares | Confirmation | UnmaskShares


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStored:
    """A masked update is whole, hash-checked and on disk."""

    site: SiteId
    header: UploadHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRefused:
    """A site declined, naming its rule."""

    site: SiteId
    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLeft:
    """A site's session ended, or another one took its place: what the agent knew of the attempt is lost."""

    site: SiteId


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReturned:
    """A site has a session again. In the last phase it is asked once more for shares that are still needed."""

    site: SiteId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The time of a phase is over. One that comes late, for a phase already left, changes nothing."""

    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The operator paused or aborted the study."""

    reason: str


Event: TypeAlias = MessageArrived | UploadStored | SiteRefused | SiteLeft | SiteReturned | DeadlinePassed | Stopped
