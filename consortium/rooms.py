"""What the coordinator's shells work with, handed over as one value."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consortium.accounts import Accounts
from consortium.contract.mlflow_run import Tracking
from consortium.database import Database
from consortium.journal import Journal
from consortium.log_keys import LogKeyring
from consortium.models import Models
from consortium.record import Recorder
from consortium.sessions import Sessions
from consortium.sites import Sites
from consortium.studies import Studies
from consortium.vectors import VectorStore
from consortium.witnesses import Witnesses


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """The parts of a running coordinator."""

    consortium: str
    signing_key: Ed25519PrivateKey
    recorder: Recorder
    witnesses: Witnesses
    log_keys: LogKeyring
    sites: Sites
    accounts: Accounts
    studies: Studies
    sessions: Sessions
    uploads: VectorStore  # masked updates of attempts under way; never handed out
    vectors: VectorStore  # aggregates
    evidence: VectorStore  # messages that broke a rule; their digests are in the log
    models: Models
    journal: Journal
    database: Database
    tracking: Tracking | None = None  # the MLflow server that gets the figures, if there is one
    curves: Path | None = None  # the folder of figures for TensorBoard, if there is to be one
