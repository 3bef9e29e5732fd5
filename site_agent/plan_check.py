"""Whether an invitation is one this site may answer: the approved study, the model it expects, nothing lowered (pure).

The coordinator is assumed to lie (protocol section 3). Everything in a round plan that follows from the approved study
is computed here again and compared; what does not follow from it (who takes part, which attempt) is bounded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit import entries
from audit.errors import AuditError
from consortium.contract import certificates
from consortium.contract.certificates import CertificateRefused, Role
from consortium.contract.digest import digest_of
from consortium.contract.global_model import GlobalModel, ParameterLayout
from consortium.contract.layout import last_round, measures, round_layout
from consortium.contract.messages import Invitation
from consortium.contract.names import Digest, RoundNumber, SiteId
from consortium.contract.plan import PLAN_SIGNATURE_CONTEXT, RoundKind, RoundPlan
from consortium.contract.server_optimizer import has_ended, kind_of
from consortium.contract.study import StudyFile
from site_agent.errors import SiteError
from site_agent.store import ChainLink


class PlanRefused(SiteError):
    """A round plan that breaks a rule; nothing was computed for it."""

    def __init__(self, rule: str, found: str, allowed: str) -> None:
        super().__init__(f"round plan refused ({rule}): found {found}; allowed: {allowed}")
        self.rule = rule

    def advice(self) -> str:
        """What to do next."""
        return "Keep this message and ask the consortium lead. An honest coordinator does not send such a plan."


class PlanOutdated(SiteError):
    """A round plan from before this hospital changed its signing keys: it could not keep it. Nobody's fault."""

    def advice(self) -> str:
        """What to do next."""
        return "Nothing: the coordinator plans anew with the new keys."


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What this site knows before it reads the plan."""

    consortium: str
    study: StudyFile
    site: SiteId
    signing_key: str
    ecdsa_key: str
    parameters: ParameterLayout  # of the study's network
    first_model: Digest  # computed here from the study
    chain: ChainLink | None  # the last round this site saw closed
    joined: tuple[int, int]  # round and attempt this process joined last; (0, 0) before the first
    released: bool  # whether this site released shares in this very attempt, also before a restart
    peers: Mapping[SiteId, str]  # other hospitals' signing keys (hex), as this site has known them
    minimum_sites: int  # the hospital's own floor
    minimum_threshold: int  # the hospital's own floor
    former_keys: frozenset[str] = frozenset()  # Ed25519 keys that this site had before it changed them
    endorsed_before: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of an entry -> its hospital's former key


read_plan = lru_cache(maxsize=8)(RoundPlan.from_bytes)
"""The plan that bytes say, read once: the same bytes come with an invitation, a release and a result."""


def check_signature(invitation: Invitation, coordinator_signing_key: bytes) -> None:
    """Raise PlanRefused unless the coordinator signed the very bytes of the plan."""
    try:
        Ed25519PublicKey.from_public_bytes(coordinator_signing_key).verify(
            invitation.signature, PLAN_SIGNATURE_CONTEXT + invitation.plan
        )
    except InvalidSignature as error:
        raise PlanRefused("signature", "one that does not verify", "the coordinator's, as in the kit") from error


def check_plan(
    plan: RoundPlan, invitation: Invitation, expected: Expectation, *, authority: x509.Certificate, now: datetime
) -> None:
    """Raise PlanRefused unless every field is as the approved study, this site's floors and its memory demand.

    Args:
        plan: What the signed bytes of the invitation say.
        invitation: Its certificates and endorsements.
        expected: What this site knows.
        authority: The consortium's.
        now: UTC.
    """
    study = expected.study
    _same("consortium", plan.consortium, expected.consortium)
    _same("study", plan.study_digest, study.digest())
    # Section 4: nobody but the study's authors chooses the algorithms.
    _same("suite", plan.suite.value, study.aggregation.suite)
    # This hospital's signed entries speak of the study by this name.
    _same("study name", plan.study, study.study_id)
    if now.date() > study.governance.expires:
        raise PlanRefused("expiry", f"{now.date()}", f"until {study.governance.expires}")
    _check_cohort(plan, expected)
    _same("round deadline", plan.round_deadline_s, study.aggregation.round_deadline_s)
    _same("upload deadline", plan.upload_deadline_s, study.aggregation.upload_deadline_s)
    _check_turn(plan, expected)
    _check_schedule(plan, study)
    kind = RoundKind.TRAIN if plan.round <= study.training.rounds else RoundKind.EVALUATE
    if study.has_validation and plan.round > 1 and plan.kind is RoundKind.EVALUATE:
        kind = RoundKind.EVALUATE  # of a model that may have been chosen early: `check_model_fits` sees whether it was
    _same("kind", plan.kind.value, kind.value)
    allowed = [
        round_layout(study, parameters=expected.parameters, kind=kind, measured=measured)
        for measured in (True, False)
        if (measures(study, kind, plan.round) if measured else kind is RoundKind.TRAIN)
    ]
    if plan.layout not in allowed:
        raise PlanRefused("layout", "other lanes, clips or scales", "those that follow from the study")
    _check_roster(plan, invitation.certificates, expected, authority, now)
    _check_model(plan, invitation, expected, authority, now)


def check_model_fits(plan: RoundPlan, study: StudyFile, model: GlobalModel) -> None:
    """Raise PlanRefused unless the study goes on from this model, and with a round of this kind.

    What `check_plan` cannot know: a site that missed the round before sees the model only when it has fetched it.
    """
    if plan.round > 1 and has_ended(study, model):
        raise PlanRefused("model", "the one that the study ended with", "one that training goes on from")
    if study.has_validation:
        _same("kind", plan.kind.value, kind_of(study, plan.round, model).value)


def _check_cohort(plan: RoundPlan, expected: Expectation) -> None:
    """Section 2: as many hospitals as the study promised, in the round and in its sum, and as this one demands."""
    study = expected.study
    names = tuple(participant.site for participant in plan.participants)
    outside = sorted(set(names) - set(study.sites.required))
    if outside:
        raise PlanRefused("participants", ", ".join(outside), "hospitals of the study")
    # Section 10: in the smallest groups that the study allows, or in one, and not as the coordinator likes.
    _same("group size", plan.group_size, study.aggregation.group_size or 0)
    _same("threshold", plan.threshold, study.aggregation.threshold)
    _same("minimum", plan.minimum, study.sites.minimum)
    if study.sites_that_open < expected.minimum_threshold:
        raise PlanRefused("threshold", str(study.sites_that_open), "at least the minimum_threshold of this hospital")
    if len(names) < study.sites.minimum:
        raise PlanRefused("participants", f"{len(names)} hospitals", f"at least {study.sites.minimum}")
    # So many are left in every sum at the least, however many are invited; in groups, in the sum of each.
    if study.sites_in_a_sum < expected.minimum_sites:
        raise PlanRefused("minimum", str(study.sites_in_a_sum), "at least the minimum_sites of this hospital")


def _check_turn(plan: RoundPlan, expected: Expectation) -> None:
    """Rounds and attempts only go forward, and end: nothing is computed, masked or measured once more on demand."""
    last = last_round(expected.study)
    if plan.round > last:
        raise PlanRefused("round", str(plan.round), f"at most {last}, the last of the study")
    if expected.chain is not None and expected.chain.ended:
        # By the study's own rule on figures that this site has seen: nobody may have one more round of its patients.
        raise PlanRefused("round", str(plan.round), f"none: the study ended with round {expected.chain.round}")
    if (plan.round, plan.attempt) <= expected.joined:
        raise PlanRefused(
            "attempt",
            f"round {plan.round}, attempt {plan.attempt}",
            "later than round {}, attempt {}".format(*expected.joined),
        )
    # 4.4: one release per attempt, whatever happened to this process since.
    if expected.released:
        raise PlanRefused("attempt", "one in which this site released its shares", "a new one")


def _check_schedule(plan: RoundPlan, study: StudyFile) -> None:
    """Section 2: in a study whose hospitals train by turns, those whose turn it is and no others, this one included."""
    allowed = study.sites_of_round(plan.round)
    others = sorted({participant.site for participant in plan.participants} - set(allowed))
    if others:
        raise PlanRefused(
            "schedule", f"{', '.join(others)} in round {plan.round}", f"whose turn it is: {', '.join(allowed)}"
        )


def _check_roster(
    plan: RoundPlan,
    certificates_der: Sequence[bytes],
    expected: Expectation,
    authority: x509.Certificate,
    now: datetime,
) -> None:
    """Protocol section 3: every participant's keys are those of a certificate that is good now."""
    if len(certificates_der) != len(plan.participants):
        raise PlanRefused("certificates", str(len(certificates_der)), f"{len(plan.participants)}, one per participant")
    for participant, der in zip(plan.participants, certificates_der, strict=True):
        try:
            holder = certificates.verify_certificate(der, authority, now, role=Role.SITE)
        except CertificateRefused as error:
            raise PlanRefused(f"certificate of {participant.site}", error.found, error.allowed) from error
        keys = (holder.spki_sha256, holder.signing_key or b"", holder.ecdsa_key or b"")
        _same(
            f"keys of {participant.site}",
            (holder.name, *(key.hex() for key in keys)),
            (participant.site, participant.spki_sha256, participant.signing_key, participant.ecdsa_key),
        )
    mine = [p for p in plan.participants if p.site == expected.site]
    if mine and mine[0].signing_key in expected.former_keys:
        raise PlanOutdated("the round was planned before this hospital changed its signing keys")
    # Not by the TLS key: that may have been renewed since the plan was made.
    if not mine or (mine[0].signing_key, mine[0].ecdsa_key) != (expected.signing_key, expected.ecdsa_key):
        raise PlanRefused("participants", "a list without this site's own keys", "one that has them")


def _check_model(
    plan: RoundPlan, invitation: Invitation, expected: Expectation, authority: x509.Certificate, now: datetime
) -> None:
    """Protocol 4.5: a model this site computed itself, or one that `threshold` sites signed that they did."""
    chain = expected.chain
    known_round = chain.round if chain is not None else 0
    if plan.round <= known_round:
        raise PlanRefused("round", f"{plan.round}, which is closed here", f"{known_round + 1} or later")
    if plan.round == known_round + 1:
        model, transcript = (
            (chain.model_digest, chain.transcript) if chain is not None else (expected.first_model, Digest("0" * 64))
        )
        _same("model", plan.model_digest, model)
        _same("previous transcript", plan.previous_transcript, transcript)
        return
    known = {**expected.peers, **_keys_shown(invitation.endorser_certificates, authority, now)}
    signers = _endorsers(plan, invitation.endorsements, expected, known)
    if len(signers) < plan.threshold:
        raise PlanRefused(
            "model",
            f"one that {len(signers)} hospitals of the study endorsed",
            f"one that {plan.threshold} endorsed, as this site missed rounds {known_round + 1} to {plan.round - 1}",
        )


def _keys_shown(certificates_der: Sequence[bytes], authority: x509.Certificate, now: datetime) -> dict[SiteId, str]:
    """Signing keys of hospitals that are not in the plan, by certificates that are good now."""
    shown: dict[SiteId, str] = {}
    for der in certificates_der:
        try:
            holder = certificates.verify_certificate(der, authority, now, role=Role.SITE)
        except CertificateRefused as error:
            raise PlanRefused("certificate of an endorser", error.found, error.allowed) from error
        shown[SiteId(holder.name)] = (holder.signing_key or b"").hex()
    return shown


def _endorsers(
    plan: RoundPlan, endorsements: Sequence[bytes], expected: Expectation, known: Mapping[SiteId, str]
) -> frozenset[SiteId]:
    """The hospitals of the study whose signature on this model verifies, whether or not they take part in this round.

    A key counts if this site has known it since before, or if a certificate of the invitation has just shown it.
    """
    known = {site: key for site, key in known.items() if site in expected.study.sites.required}
    known |= {p.site: p.signing_key for p in plan.participants}
    keys = {f"site:{site}": (site, bytes.fromhex(key)) for site, key in known.items()}
    found: set[SiteId] = set()
    for data in endorsements[: len(keys)]:
        try:
            claimed = entries.parse_entry(data)
            if not isinstance(claimed, entries.ModelVerified) or claimed.actor not in keys:
                continue
            site, key = keys[claimed.actor]
            # What a hospital endorsed before it changed its keys counts, if this one's copy of the log had it before.
            former = expected.endorsed_before.get(digest_of(data))
            entries.verify_site_entry(data, key if former is None else bytes.fromhex(former))
        except AuditError:
            continue
        about = (claimed.study, claimed.round, claimed.next_model_digest)
        if about == (plan.study, RoundNumber(plan.round - 1), plan.model_digest):
            found.add(site)
    return frozenset(found)


def _same(rule: str, found: object, allowed: object) -> None:
    if found != allowed:
        raise PlanRefused(rule, str(found)[:200], str(allowed)[:200])
