"""What this hospital knows of a study without the log, gathered for `study_review.review`."""

from collections.abc import Iterable
from datetime import UTC, datetime

from audit.checkpoint import SignedCheckpoint
from audit.cosignature import WitnessKey
from audit.log import LogView
from consortium.contract.study import StudyFile
from site_agent.egress_log import read_egress
from site_agent.followed_log import FollowedLog, LogBroken, OwnChain
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.log_keys import believed_keys
from site_agent.log_mirror import FOLDER
from site_agent.seen_checkpoints import read_seen
from site_agent.store import Decision, Store
from site_agent.study_review import MASKED_UPDATE, Cosigned, Counted, Left, OwnFacts, Witnessed


def own_facts(home: AgentHome, store: Store, ledger: Ledger, log: LogView, decision: Decision) -> OwnFacts:
    """Everything that a review of a study needs.

    Raises:
        EgressAltered: What it would be gathered from is not sound.
    """
    link = store.chain(decision.study_digest)
    return OwnFacts(
        site=home.site,
        signing_key=home.identity.signing_key,
        study=decision.study,
        study_digest=decision.study_digest,
        decision=decision.decision,
        signed=store.signed_entries(),
        acknowledged=store.last_acknowledged(),
        counted=_counted(ledger, decision),
        left=tuple(
            Left(leaf=line.leaf, sha256=line.sent.sha256, size_bytes=line.sent.size_bytes)
            for line in read_egress(home, store).lines
            if line.sent.kind == MASKED_UPDATE and line.sent.study_digest == decision.study_digest
        ),
        last_model=(link.round, link.model_digest) if link is not None else None,
        witnessed=_witnessed(home, store, log, StudyFile.from_document(decision.document)),
    )


def _counted(ledger: Ledger, decision: Decision) -> Counted | None:
    rows = [row for row in ledger.report() if row.study_digest == decision.study_digest]
    if not rows:
        return None
    (row,) = rows[:1]
    return Counted(steps=row.steps, unsettled=row.open_rounds, epsilon=row.epsilon, delta=row.delta)


def _witnessed(home: AgentHome, store: Store, log: LogView, study: StudyFile) -> Witnessed:
    """The copy's checkpoint, and what the study's hospitals cosigned of it, by the keys that the log has for them."""
    followed = FollowedLog(OwnChain(site=home.site, signed=store.signed_entry), *believed_keys(home).accepted)
    signed = log.checkpoint()
    followed.under(signed.note)
    broken = ""
    try:
        followed.follow(log)
        followed.hear([*read_seen(home.folder / FOLDER), signed.to_bytes()], log, signed.to_bytes())
    except LogBroken as error:  # the other lines say more of what a hospital's own entries have to do with it
        broken = str(error)
    cosigned = [
        Cosigned(site=site, size=seen.checkpoint.size, when=_when(seen, followed.keys_of(site, seen.checkpoint.size)))
        for site, seen in sorted(followed.cosigned.items())
        if site in study.sites.required
    ]
    return Witnessed(
        size=signed.checkpoint.size,
        root=signed.checkpoint.root.hex(),
        cosigned=tuple(cosigned),
        needed=study.cosignatures_needed,
        broken=broken,
    )


def _when(seen: SignedCheckpoint, keys: Iterable[WitnessKey]) -> str:
    """When a hospital cosigned, by its own clock."""
    times = [key.verify(seen.note.text, line) for key in keys for line in seen.note.signatures if key.is_of(line)]
    try:
        return f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "at no time"
