"""One real hospital agent and a coordinator in memory that runs whole rounds with it, honestly or not.

    async with hospital(tmp_path) as world:
        outcome = await world.attempt()

The hospital is real: its home on disk, its store and ledger, a cohort of synthetic patients, DP-SGD, its `StudyWork`.
The other hospitals are puppets: real secure-aggregation machines under real certificates, with an update of zeros. The
coordinator is the real machine of `privacy.secagg.coordinator`; `attempt` has hooks with which a test makes it lie.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from consortium.contract import certificates
from consortium.contract.certificates import Authority
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import LaneName, measures, round_layout
from consortium.contract.messages import (
    BundleList,
    CoordinatorMessage,
    Invitation,
    PrepareStudy,
    Refusal,
    ResultVerified,
    RoundAborted,
    RoundResult,
    ShareDelivery,
    SiteMessage,
    StudyPrepared,
    VectorHeader,
    VectorKind,
)
from consortium.contract.names import Digest, RoundNumber, SiteId
from consortium.contract.plan import PLAN_SIGNATURE_CONTEXT, Participant, RoundKind, RoundPlan, context_of
from consortium.contract.server_optimizer import next_global_model
from consortium.contract.study import StudyFile, load_study
from consortium.wire.errors import ConnectionLost
from privacy.encoding import RingVector, decode, encode
from privacy.p256 import EcdsaSigner, point_bytes
from privacy.secagg import coordinator, site
from privacy.secagg.keys import Signer
from privacy.secagg.masks import RunningSum, apply_masks, vector_hash
from privacy.secagg.messages import (
    Confirmation,
    KeyBundle,
    SealedShares,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.suites import SuiteName
from privacy.secret import Secret
from site_agent.home import AgentHome, Identity, open_home
from site_agent.ledger import Ledger
from site_agent.store import Decision, Store
from site_agent.study_work import StudyWork
from site_agent.training_room import Order, Rooms, TrainingRoom
from tests.fakes.growing_log import SIGNER
from tests.fakes.stewards import signed

NAME = "alpine-heart"
ME = SiteId("birch")
SITES = tuple(SiteId(name) for name in ("alder", "birch", "cedar", "dogwood"))
ZEROS = Digest("0" * 64)
WAIT_S = 150.0  # loading torch takes its time on a busy machine
DECLARED_PATIENTS = 8317  # numbers that are nowhere else, so that a test can look for them in what leaves
CAP = 7.631
PATIENTS = 45
HEART = Path(__file__).parents[2] / "configs/heart-disease/study.yaml"


# --- who takes part ------------------------------------------------------------------------------------------------


def now() -> datetime:
    """The time the tests run at."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A hospital with its keys, as its certificate binds them."""

    site: SiteId
    certificate_pem: bytes
    tls_key_pem: bytes
    signing_key: Ed25519PrivateKey
    ecdsa_key: EllipticCurvePrivateKey
    spki_sha256: Digest

    @property
    def participant(self) -> Participant:
        """Its line in a plan."""
        key = self.signing_key.public_key().public_bytes_raw().hex()
        ecdsa_key = point_bytes(self.ecdsa_key.public_key()).hex()
        return Participant(site=self.site, spki_sha256=self.spki_sha256, signing_key=key, ecdsa_key=ecdsa_key)

    def signer(self, suite: SuiteName) -> Signer:
        """The key that signs its messages of secure aggregation."""
        return EcdsaSigner(self.ecdsa_key) if suite is SuiteName.P256 else self.signing_key

    @property
    def certificate_der(self) -> bytes:
        """Its certificate, as an invitation carries it."""
        return certificates.certificate_der(self.certificate_pem)


def new_authority() -> Authority:
    """An authority for this consortium's name that nobody else has."""
    return certificates.create_authority(NAME, now=now() - timedelta(days=90), valid_for=timedelta(days=3650))


def new_member(
    authority: Authority, name: str, *, at: datetime | None = None, valid_for: timedelta = timedelta(days=365)
) -> Member:
    """Keys and a certificate for a hospital."""
    tls_key, signing_key = certificates.new_tls_key(), certificates.new_signing_key()
    ecdsa_key = certificates.new_ecdsa_key()
    request = certificates.site_request(
        tls_key=tls_key, signing_key=signing_key, ecdsa_key=ecdsa_key, site=SiteId(name), consortium=NAME
    )
    pem = certificates.issue_site(authority, SiteId(name), request, now=at or now(), valid_for=valid_for)
    return Member(
        site=SiteId(name),
        certificate_pem=pem,
        tls_key_pem=certificates.private_pem(tls_key),
        signing_key=signing_key,
        ecdsa_key=ecdsa_key,
        spki_sha256=Digest(hashlib.sha256(certificates.spki_of(tls_key.public_key())).hexdigest()),
    )


@dataclass(frozen=True, kw_only=True)
class Keys:
    """An authority, the coordinator's signing key and the hospitals; made once for all tests of a run."""

    authority: Authority
    coordinator: Ed25519PrivateKey
    members: Mapping[SiteId, Member]


@cache
def keys() -> Keys:
    """The consortium's keys."""
    authority = new_authority()
    return Keys(
        authority=authority,
        coordinator=certificates.new_signing_key(),
        members={name: new_member(authority, name) for name in SITES},
    )


@cache
def _heart() -> StudyFile:
    """Read once; it is frozen, and what is made of it is a copy."""
    return load_study(HEART)


def small_study(**sections: Mapping[str, Any]) -> StudyFile:
    """Two measurements, logistic regression, two rounds, four hospitals of which three open a sum."""
    record = _heart().model_dump(mode="python", by_alias=True, exclude_none=True)
    record["id"] = "small-study"
    record["sites"] = {"required": SITES, "minimum": 3}
    record["data"] |= {
        "features": {
            "age": {"type": "number", "unit": "years", "range": (0.0, 120.0), "scale": {"mean": 50.0, "std": 10.0}},
            "kind": {"type": "category", "values": (1, 2, 3)},
        },
        "label": {"name": "outcome", "type": "binary", "positive_above": 0.0},
        "minimum_patients": 20,
    }
    record["training"] |= {"rounds": 2, "local_steps": 1, "spare_rounds": 0}
    record["evaluation"] |= {"subgroups": ({"column": "age", "bands": (50.0,)},)}
    for name, changes in sections.items():
        record[name] = {**record[name], **changes} if isinstance(changes, Mapping) else changes
    return StudyFile.model_validate(record)


def make_home(
    folder: Path,
    study: StudyFile,
    *,
    authority: Authority | None = None,
    member: Member | None = None,
    address: str = "127.0.0.1:9",
    **policy: Any,
) -> AgentHome:
    """An enrolled home with a cohort and a site.yaml, as `site-agent enrol` and the hospital would have left it.

    Args:
        folder: Where.
        study: The one its dataset is named for.
        authority: Under which it is enrolled with fresh keys; by default that of `keys`, with the keys there.
        member: Who it is, under that authority; by default the hospital under test.
        address: The coordinator's.
        policy: Rules of site.yaml.
    """
    own = member or (keys().members[ME] if authority is None else new_member(authority, ME))
    authority = authority or keys().authority
    for name in ("keys", "certificates"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, data in {
        "tls.pem": own.tls_key_pem,
        "signing.pem": certificates.private_pem(own.signing_key),
        "ecdsa.pem": certificates.private_pem(own.ecdsa_key),
        "hedge.key": hashlib.sha256(b"hedge").digest(),
    }.items():
        (folder / "keys" / name).write_bytes(data)
        (folder / "keys" / name).chmod(0o600)
    (folder / "certificates/ca.pem").write_bytes(authority.certificate_pem)
    (folder / "certificates/site.pem").write_bytes(own.certificate_pem)
    identity = Identity(
        consortium=NAME,
        site=own.site,
        address=address,
        log_vkey=SIGNER.verifier.vkey(),
        coordinator_signing_key=keys().coordinator.public_key().public_bytes_raw().hex(),
        ca_sha256=certificates.fingerprint(authority.certificate),
        spki_sha256=own.spki_sha256,
        signing_key=own.participant.signing_key,
        ecdsa_key=own.participant.ecdsa_key,
    )
    (folder / "identity.json").write_text(identity.model_dump_json())
    write_patients(folder / "patients.csv")
    write_site_file(folder, study, site=own.site, **policy)
    return open_home(folder)


def write_patients(path: Path, count: int = PATIENTS) -> None:
    """Patients whose age decides their outcome."""
    rows = [f"SECRET-{n:03},{30 + n},{1 + n % 3},{int(n % 4 > 1)}" for n in range(count)]
    path.write_text("\n".join(["patient,age,kind,outcome", *rows]) + "\n")


def write_site_file(
    folder: Path, study: StudyFile, *, site: str = ME, dataset: str | None = "ward", **policy: Any
) -> None:
    """site.yaml; `policy` overrides single rules."""
    rules = {
        "max_epsilon_total": CAP,
        "max_epsilon_per_study": 1.0,
        "minimum_patients": 20,
        "share_exact_metrics": True,
    }
    record = {
        "schema": "consortium/site/v1",
        "site": site,
        "datasets": {
            "ward": {
                "path": "patients.csv",
                "format": "csv",
                "patient_id": "patient",
                "declared_patients": DECLARED_PATIENTS,
            }
        },
        "studies": {study.id: dataset} if dataset else {},
        "policy": rules | policy,
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(record))


# --- the other hospitals -------------------------------------------------------------------------------------------


class Puppet:
    """A hospital that runs secure aggregation and nothing else; its update is zeros, its weight 1."""

    def __init__(self, member: Member, plan: RoundPlan) -> None:
        self.plan = plan
        self.state: site.State
        self.state, self.bundle = site.begin(
            context_of(plan),
            member.site,
            member.signer(plan.suite),
            lambda size: hashlib.shake_256(f"{member.site}/{plan.round}/{plan.attempt}".encode()).digest(size),
            Secret(hashlib.sha256(f"long-term secret of {member.site}".encode()).digest()),
        )
        self.masked: RingVector | None = None

    def hear(self, event: site.Event) -> list[KeyBundle | SealedShares | UploadHeader | Confirmation | UnmaskShares]:
        """Its answers; an upload's vector is then in `masked`."""
        self.state, effects = site.step(self.state, event)
        said: list[Any] = [effect.message for effect in effects if isinstance(effect, site.Send)]
        if isinstance(self.state, site.Masking):
            values = {lane.name: np.zeros(lane.length) for lane in self.plan.layout.lanes}
            if LaneName.WEIGHT in values:
                values[LaneName.WEIGHT] += 1
            self.masked = encode(values, self.plan.layout, self.state.dither)
            apply_masks(self.masked, self.state.masks)
            said += self.hear(site.UploadFinished(masked_update_hash=vector_hash(self.masked)))
        return said


# --- the line ------------------------------------------------------------------------------------------------------


class MemoryLine:
    """`study_work.Line` to the coordinator in memory."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sent: list[SiteMessage] = []
        self.uploads: list[tuple[VectorHeader, bytes]] = []
        self.downloads: list[tuple[VectorKind, Digest]] = []
        self.vectors: dict[Digest, bytes] = {}  # what the coordinator hands out, by the name it is asked by
        self.log: list[entries.Entry] = []
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.broken = False
        self.unwitnessed_for_s = 0.0  # how long too few hospitals have cosigned the log
        self.endorsed: dict[str, str] = {}  # what `endorsed_before` says
        self.unwitnessed_after_all_s = float("inf")  # the same at most, once the log was asked for again

    def _check(self) -> None:
        if self.broken:
            raise ConnectionLost("the test broke it")

    async def send(self, message: SiteMessage, study_digest: Digest) -> None:
        self._check()
        self.sent.append(message)
        self.inbox.put_nowait(message)

    async def reconnected(self) -> bool:
        return False

    async def upload(self, header: VectorHeader, data: bytes | memoryview, *, again: bool = False) -> None:
        self._check()
        self.uploads.append((header, bytes(data)))
        if header.upload is not None:
            self.inbox.put_nowait(header.upload)

    async def download(
        self, kind: VectorKind, digest: Digest, limit_bytes: int, into: Callable[[bytes], Awaitable[object]]
    ) -> None:
        self._check()
        self.downloads.append((kind, digest))
        if digest not in self.vectors:
            raise ConnectionLost("there is no such vector")
        await into(self.vectors[digest][: limit_bytes + 1])

    async def submit_events(self) -> None:
        self._check()
        for sequence, entry in self.store.pending_events():
            self.log.append(entries.parse_entry(entry))
            self.store.acknowledge(sequence)

    def submit_events_soon(self) -> None:
        self._check()
        for sequence, entry in self.store.pending_events():
            self.log.append(entries.parse_entry(entry))
            self.store.acknowledge(sequence)

    async def read_log(self, holds: Callable[[], bool]) -> None:
        """There is no log."""

    def endorsed_before(self) -> Mapping[str, str]:
        return self.endorsed

    def unwitnessed_s(self, roster: Iterable[SiteId], needed: int) -> float:
        return self.unwitnessed_for_s

    async def look_again(self) -> None:
        self.unwitnessed_for_s = min(self.unwitnessed_for_s, self.unwitnessed_after_all_s)

    def refusals(self) -> list[Refusal]:
        """What this hospital declined, in order."""
        return [message for message in self.sent if isinstance(message, Refusal)]

    def logged(self, kind: type[entries.Entry]) -> list[Any]:
        """This hospital's entries of one kind that reached the log."""
        return [entry for entry in self.log if isinstance(entry, kind)]


# --- the coordinator -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Outcome:
    """How an attempt went, as the coordinator sees it."""

    plan: RoundPlan
    context: bytes
    state: coordinator.State
    said: list[Any] = field(default_factory=list)  # by the real hospital, in order
    sums: Mapping[str, Any] = field(default_factory=dict)
    aggregate: bytes = b""
    result: RoundResult | None = None

    @property
    def closed(self) -> bool:
        """Whether the sum was opened."""
        return isinstance(self.state, coordinator.Done)

    def said_kinds(self) -> list[str]:
        """Names of what the real hospital said."""
        return [type(message).__name__ for message in self.said]


ToVictim = Callable[[CoordinatorMessage], CoordinatorMessage | list[CoordinatorMessage] | None]


@dataclass(kw_only=True)
class World:
    """The hospital under test and everything around it."""

    home: AgentHome
    study: StudyFile
    store: Store
    ledger: Ledger
    line: MemoryLine
    work: StudyWork
    rooms: Rooms
    task: asyncio.Task[None] | None = None
    model: GlobalModel | None = None
    transcript: Digest = ZEROS
    next_round: int = 1
    patient: bool = True  # whether a hospital is waited for that has handled all it was told: it may be computing

    @property
    def digest(self) -> Digest:
        return self.study.digest()

    # --- the hospital's life ---

    async def start(self) -> None:
        """The agent's process begins; again after `stop` it is a restart, with what is on disk and nothing else."""
        self.work = ObservedWork(self.home, self.store, self.ledger, self.line, self.digest, rooms=self.rooms)
        self.task = asyncio.create_task(self.work.run())

    async def stop(self) -> None:
        """The process dies."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def decide(self, decision: str = "approved") -> None:
        """The steward decides."""
        made = Decision(
            study_digest=self.digest,
            study=self.study.study_id,
            document=self.study.document(),
            decision=decision,
            steward="Dr Somebody",
            statement="I have read it.",
            at=1.0,
            signatures=signed(self.home, self.store, self.study, decision),
        )
        self.store.add_events([], decision=made)

    async def tell(self, message: CoordinatorMessage) -> None:
        """The coordinator says something."""
        await self.work.deliver(message)

    async def hear(self) -> Any:
        """The next thing the hospital says; TimeoutError if nothing comes."""
        if not self.patient:
            await self.idle()
            if self.line.inbox.empty():
                raise TimeoutError
        return await asyncio.wait_for(self.line.inbox.get(), WAIT_S)

    async def idle(self) -> None:
        """Wait until everything that was said to the hospital is handled."""
        done = asyncio.Event()
        await self.work.deliver(_Marker(done))  # type: ignore[arg-type]
        await asyncio.wait_for(done.wait(), WAIT_S)

    async def computed(self) -> None:
        """Wait until the attempt under way has its values, and what follows from them is done."""
        attempt = self.work._attempt
        assert attempt is not None
        assert attempt.computing is not None
        await asyncio.wait_for(asyncio.wait({attempt.computing}), WAIT_S)
        await self.idle()

    async def prepare(self) -> StudyPrepared | Refusal:
        """Ask it to get ready; the coordinator takes the first model it names."""
        await self.tell(PrepareStudy(study_digest=self.digest))
        answer = await self.hear()
        if isinstance(answer, StudyPrepared) and self.model is None:
            path = self.home.folder / "models" / f"{answer.model_digest}.safetensors"
            self.model = GlobalModel.from_safetensors(path.read_bytes())
        return answer

    # --- rounds ---

    def plan(self, *, measured: bool | None = None, sites: tuple[SiteId, ...] = SITES, **changes: Any) -> RoundPlan:
        """The honest plan of the next round, but for `changes`."""
        assert self.model is not None
        number = RoundNumber(changes.pop("round", self.next_round))
        kind = changes.pop("kind", RoundKind.TRAIN if number <= self.study.training.rounds else RoundKind.EVALUATE)
        if measured is None:
            measured = measures(self.study, kind, number)
        fields: dict[str, Any] = {
            "consortium": NAME,
            "suite": SuiteName(self.study.aggregation.suite),
            "study": self.study.study_id,
            "study_digest": self.digest,
            "kind": kind,
            "round": number,
            "attempt": 1,
            "participants": tuple(keys().members[name].participant for name in sorted(sites)),
            "threshold": self.study.aggregation.threshold,
            "minimum": self.study.sites.minimum,
            "model_digest": self.model.digest(),
            "previous_transcript": self.transcript,
            "layout": round_layout(self.study, parameters=self.model.parameters, kind=kind, measured=measured),
            "round_deadline_s": self.study.aggregation.round_deadline_s,
            "upload_deadline_s": self.study.aggregation.upload_deadline_s,
        }
        return RoundPlan(**{**fields, **changes})

    def invitation(self, plan: RoundPlan, **changes: Any) -> Invitation:
        """The signed invitation to a plan, but for `changes`."""
        raw = plan.to_bytes()
        members = keys().members
        fields: dict[str, Any] = {
            "plan": raw,
            "signature": keys().coordinator.sign(PLAN_SIGNATURE_CONTEXT + raw),
            "certificates": tuple(members.get(p.site, members[ME]).certificate_der for p in plan.participants),
            "endorsements": (),
        }
        return Invitation(**{**fields, **changes})

    async def ask(self, plan: RoundPlan, **changes: Any) -> Any:
        """Invite, and hear the first answer: a key bundle, or a refusal."""
        await self.tell(self.invitation(plan, **changes))
        return await self.hear()

    async def attempt(
        self,
        plan: RoundPlan | None = None,
        *,
        drops: tuple[str, ...] = (),
        to_victim: ToVictim = lambda message: message,
        result: bool = True,
        endorsements: tuple[bytes, ...] = (),
    ) -> Outcome:
        """Run an attempt to its end.

        Args:
            plan: The honest one by default.
            drops: Puppets whose connection breaks before their upload.
            to_victim: What the coordinator makes of each message to the real hospital; at None it treats it as gone.
            result: Whether the result is announced to the real hospital and its verification awaited.
            endorsements: For the invitation.
        """
        plan = plan or self.plan()
        while not self.line.inbox.empty():
            self.line.inbox.get_nowait()
        run = _Run(self, plan, drops, to_victim)
        outcome = await run.to_the_end(endorsements)
        if outcome.closed:
            run.publish(outcome)
            if result and ME in outcome.state.survivors:
                await self.announce(outcome)
        return outcome

    async def announce(self, outcome: Outcome) -> Any:
        """Tell the hospital the result, and hear what it says to it; then the coordinator goes on to the next round."""
        assert outcome.result is not None
        await self.tell(outcome.result)
        answer = await self.hear()
        while answer in outcome.said:  # a request that came twice was answered twice, with the same bytes
            answer = await self.hear()
        outcome.said.append(answer)
        assert isinstance(answer, ResultVerified), answer
        self.go_on(outcome)
        return answer

    def go_on(self, outcome: Outcome) -> None:
        """The round is closed as far as the coordinator is concerned."""
        assert outcome.result is not None
        assert self.model is not None
        self.model = next_global_model(
            self.study, outcome.plan, self.model, outcome.sums, survivors=len(outcome.state.survivors)
        )
        self.transcript = Digest(outcome.result.transcript.hex())
        self.next_round = outcome.plan.round + 1


@dataclass(frozen=True)
class _Marker:
    """Delivered to find out when everything before it is handled."""

    done: asyncio.Event


class ObservedWork(StudyWork):
    """The real thing, which also says when it has come to a marker."""

    async def _handle(self, event: Any) -> None:
        if isinstance(event, _Marker):
            event.done.set()
        else:
            await super()._handle(event)


class _Run:
    """One attempt between the coordinator's machine, the puppets and the real hospital."""

    def __init__(self, world: World, plan: RoundPlan, drops: tuple[str, ...], to_victim: ToVictim) -> None:
        self.world, self.plan, self.drops, self.to_victim = world, plan, drops, to_victim
        context = context_of(plan)
        self.digest = context.digest()
        self.state: coordinator.State
        self.state, _ = coordinator.begin(context)
        self.sum = RunningSum(plan.layout)
        self.puppets = {p.site: Puppet(keys().members[p.site], plan) for p in plan.participants if p.site != ME}
        self.said: list[Any] = []

    async def to_the_end(self, endorsements: tuple[bytes, ...]) -> Outcome:
        await self._tell_victim(self.world.invitation(self.plan, endorsements=endorsements))
        for puppet in self.puppets.values():
            await self._step(puppet.bundle)
        while not isinstance(self.state, coordinator.Done | coordinator.Aborted):
            if ME not in coordinator.awaited(self.state):
                await self._step(coordinator.DeadlinePassed())
                continue
            try:
                message = await self.world.hear()
            except TimeoutError:
                message = None
            self.said.append(message)
            lost = message is None or isinstance(message, Refusal)
            await self._step(coordinator.SiteLost(site=ME) if lost else message)
        if isinstance(self.state, coordinator.Aborted) and not any(isinstance(m, Refusal) for m in self.said):
            await self._tell_victim(RoundAborted(context=self.digest, reason="the attempt is over"))
        return Outcome(plan=self.plan, context=self.digest, state=self.state, said=self.said)

    def publish(self, outcome: Outcome) -> None:
        assert isinstance(self.state, coordinator.Done)
        world, model = self.world, self.world.model
        assert model is not None
        aggregate = self.sum.result
        outcome.aggregate = aggregate.tobytes()
        outcome.sums = decode(aggregate, self.plan.layout, survivors=len(self.state.survivors))
        after = next_global_model(world.study, self.plan, model, outcome.sums, survivors=len(self.state.survivors))
        world.line.vectors[Digest(vector_hash(aggregate).hex())] = outcome.aggregate
        world.line.vectors[after.digest()] = after.to_safetensors()
        outcome.result = RoundResult(
            context=self.digest,
            transcript=self.state.transcript,
            aggregate_hash=vector_hash(aggregate),
            next_model_digest=after.digest(),
        )

    async def _step(self, event: coordinator.Event) -> None:
        self.state, effects = coordinator.step(self.state, event)
        for effect in effects:
            await self._perform(effect)

    async def _perform(self, effect: coordinator.Effect) -> None:
        match effect:
            case coordinator.SendBundles(to=to, bundles=bundles):
                await self._tell(
                    to,
                    BundleList(context=self.digest, bundles=bundles),
                    site.BundlesListed(context=self.digest, bundles=bundles),
                )
            case coordinator.SendShares(to=name, members=members, deliveries=deliveries):
                fields: dict[str, Any] = {"context": self.digest, "members": members, "deliveries": deliveries}
                await self._tell((name,), ShareDelivery(**fields), site.SharesDelivered(**fields))
            case coordinator.AddUpload(site=name):
                vector = self.puppets[name].masked if name != ME else self._uploaded()
                assert vector is not None
                self.sum.add(vector)
            case coordinator.SendProposal(to=to, proposal=proposal):
                await self._tell(to, proposal, proposal)
            case coordinator.SendUnmaskRequest(to=to, request=request):
                await self._tell(to, request, request)
            case coordinator.Unmasked(removal=removal):
                self.sum.remove(removal)
            case _:
                pass

    async def _tell(self, to: Any, message: CoordinatorMessage, event: site.Event) -> None:
        if ME in to:
            await self._tell_victim(message)
        for name in to:
            if name == ME:
                continue
            for answer in self.puppets[name].hear(event):
                lost = name in self.drops and isinstance(answer, UploadHeader)
                await self._step(coordinator.SiteLost(site=name) if lost else answer)

    async def _tell_victim(self, message: CoordinatorMessage) -> None:
        changed = self.to_victim(message)
        if changed is None:
            await self._step(coordinator.SiteLost(site=ME))
            return
        for one in changed if isinstance(changed, list) else [changed]:
            await self.world.tell(one)

    def _uploaded(self) -> RingVector:
        _, data = self.world.line.uploads[-1]
        return np.frombuffer(data, dtype=self.plan.layout.dtype).copy()


def in_process(order: Order) -> TrainingRoom:
    """Where studies are computed unless a test says otherwise: torch is loaded when the first one is prepared."""
    from site_agent.room_in_process import RoomInProcess  # noqa: PLC0415

    return RoomInProcess(order)


def make_world(
    folder: Path, study: StudyFile | None = None, *, approved: bool = True, rooms: Rooms = in_process, **policy: Any
) -> World:
    """A hospital that is enrolled and has approved the study; nothing is running yet."""
    study = study or small_study()
    home = make_home(folder, study, **policy)
    store = Store(folder / "agent.db")
    ledger = Ledger(folder / "ledger.db", told=store.told)
    line = MemoryLine(store)
    work = ObservedWork(home, store, ledger, line, study.digest(), rooms=rooms)
    world = World(home=home, study=study, store=store, ledger=ledger, line=line, work=work, rooms=rooms)
    if approved:
        world.decide()
    return world


def endorsement(member: Member, plan: RoundPlan, model_digest: Digest, **changes: Any) -> bytes:
    """What a hospital signs when it computed `model_digest` in the round of `plan`."""
    fields: dict[str, Any] = {
        "actor": f"site:{member.site}",
        "study": plan.study,
        "round": plan.round,
        "attempt": plan.attempt,
        "next_model_digest": model_digest,
        "site_seq": 1,
        "site_prev": entries.NO_ENTRY,
    }
    entry = entries.ModelVerified(**entries.stamp(1_700_000_000_000, bytes(10)), **{**fields, **changes})
    return entries.sign_site_entry(entry, member.signing_key)


@asynccontextmanager
async def hospital(
    folder: Path, study: StudyFile | None = None, *, ready: bool = True, **options: Any
) -> AsyncIterator[World]:
    """A running hospital, its study prepared unless told otherwise."""
    world = make_world(folder, study, **options)
    await world.start()
    try:
        if ready:
            answer = await world.prepare()
            assert isinstance(answer, StudyPrepared), answer
        yield world
    finally:
        await world.stop()


def all_but(kind: type[CoordinatorMessage]) -> ToVictim:
    """For `to_victim`: the hospital is dropped instead of being told something of this kind."""
    return lambda message: None if isinstance(message, kind) else message


def everything_said(world: World) -> str:
    """All that the coordinator and the log have from the hospital, as text to search."""
    messages = [repr(message) for message in world.line.sent]
    return "\n".join([*messages, *(json.dumps(repr(entry)) for entry in world.line.log)])
