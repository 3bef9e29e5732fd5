"""A coordinator's home on disk, and hospitals enrolled in it, without the wire.

    with coordinator_in(tmp_path) as world:
        amber = world.enrol("amber-clinic")
        world.sites.submit_events(amber.site, (amber.approves(study),))

Everything is real: keys, certificates, database, log. Making keys takes a moment, so one home is made for the whole run
and copied.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from audit.cosignature import WitnessSigner
from audit.note import Note
from consortium.app import opened
from consortium.contract.certificates import (
    PeerIdentity,
    certificate_der,
    invitation_name,
    load_tls_key,
    new_ecdsa_key,
    new_signing_key,
    new_tls_key,
    private_pem,
    site_request,
    verify_certificate,
)
from consortium.contract.kit import parse_kit
from consortium.contract.messages import EnrolmentGrant, EnrolmentRequest
from consortium.contract.names import SiteId
from consortium.contract.study import StudyFile
from consortium.coordinator import Coordinator
from consortium.home import create_home
from consortium.record import now_stamp
from consortium.rooms import Rooms
from consortium.sites import Sites
from consortium.studies import Studies
from privacy.p256 import EcdsaSigner
from privacy.secagg.keys import Signer
from privacy.secagg.suites import SuiteName
from privacy.secret import Secret

NAME = "alpine-heart"


@cache
def _template() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    holder = tempfile.TemporaryDirectory(prefix="consortium-home-")  # removed when the run ends
    folder = Path(holder.name) / "home"
    create_home(folder, name=NAME, address="127.0.0.1:8443")
    return holder, folder


def new_home(parent: Path) -> Path:
    """A home of one's own: a copy of the one all tests share."""
    folder = parent / "home"
    shutil.copytree(_template()[1], folder)
    return folder


@dataclass
class Hospital:
    """An enrolled site with its keys, and the chain of what it signed."""

    site: SiteId
    tls_key_pem: bytes = field(repr=False)
    signing_key: Ed25519PrivateKey = field(repr=False)
    ecdsa_key: EllipticCurvePrivateKey = field(repr=False)
    long_term_secret: Secret[bytes] = field(repr=False)
    witness_key: Ed25519PrivateKey = field(repr=False, default_factory=new_signing_key)
    certificate_pem: bytes = b""
    peer: PeerIdentity | None = None
    sequence: int = 0
    previous: str = entries.NO_ENTRY

    def signer(self, suite: SuiteName) -> Signer:
        """The key that signs its messages of secure aggregation."""
        return EcdsaSigner(self.ecdsa_key) if suite is SuiteName.P256 else self.signing_key

    @property
    def identity(self) -> PeerIdentity:
        assert self.peer is not None
        return self.peer

    def signs(self, kind: type[Any], /, **fields: Any) -> bytes:
        """The next entry of its chain."""
        data = self.signed_as(kind, self.sequence + 1, self.previous, **fields)
        self.sequence += 1
        self.previous = hashlib.sha256(data).hexdigest()
        return data

    def signed_as(self, kind: type[Any], sequence: int, previous: str, /, **fields: Any) -> bytes:
        """An entry at any place of the chain; the chain does not go on from it."""
        actor = fields.pop("actor", f"site:{self.site}")
        entry = kind(**now_stamp(), actor=actor, site_seq=sequence, site_prev=previous, **fields)
        return entries.sign_site_entry(entry, self.signing_key)

    def approves(self, study: StudyFile) -> bytes:
        return self.signs(entries.StudyApproved, **about(study), statement="approved")

    def rejects(self, study: StudyFile, reason: str = "withdrawn") -> bytes:
        return self.signs(entries.StudyRejected, **about(study), reason=reason)


def about(study: StudyFile) -> dict[str, Any]:
    """The fields of an approval."""
    return {"study": study.id, "study_digest": study.digest(), "steward": "u:" + "0" * 16}


def new_hospital(name: str) -> Hospital:
    """A hospital with keys and nothing else."""
    return Hospital(
        site=SiteId(name),
        tls_key_pem=private_pem(new_tls_key()),
        signing_key=new_signing_key(),
        ecdsa_key=new_ecdsa_key(),
        long_term_secret=Secret(hashlib.sha256(name.encode()).digest()),
    )


@dataclass
class Home:
    """An opened coordinator, not serving."""

    folder: Path
    coordinator: Coordinator

    @property
    def rooms(self) -> Rooms:
        return self.coordinator.rooms

    @property
    def sites(self) -> Sites:
        return self.rooms.sites

    @property
    def studies(self) -> Studies:
        return self.rooms.studies

    def token(self, name: str) -> str:
        """A fresh invitation's token."""
        kit, _ = self.sites.invite(name)
        return parse_kit(kit).token

    def request(self, hospital: Hospital, token: str, *, name: str | None = None) -> EnrolmentRequest:
        """What `site-agent enrol` sends."""
        der = site_request(
            tls_key=load_tls_key(hospital.tls_key_pem),
            signing_key=hospital.signing_key,
            ecdsa_key=hospital.ecdsa_key,
            site=SiteId(name or hospital.site),
            consortium=NAME,
        )
        return EnrolmentRequest(site=SiteId(name or hospital.site), token=token, request_der=der)

    def certify(self, request: EnrolmentRequest) -> EnrolmentGrant:
        """What the coordinator answers to a request from whoever holds the token's kit."""
        return self.sites.enrol(request, invitation_name(request.token))

    def enrol(self, name: str, hospital: Hospital | None = None) -> Hospital:
        """Invite and enrol a hospital, with keys of its own."""
        hospital = hospital or new_hospital(name)
        grant = self.certify(self.request(hospital, self.token(name)))
        return granted(hospital, grant.certificate_pem, self.coordinator.home.ca_certificate)

    def submit(self, study: StudyFile) -> None:
        self.studies.submit(study, study.document())

    def witnessed_by(self, *hospitals: Hospital) -> None:
        """Hospitals cosign the log as it is now, each with a key of its own."""
        witnesses = self.rooms.witnesses
        origin = self.coordinator.home.config.log_origin
        signers = {one.site: WitnessSigner(f"{origin}/witness/{one.site}", one.witness_key) for one in hospitals}
        for one in hospitals:
            if witnesses.keys().get(one.site) != signers[one.site].key:
                vkey = signers[one.site].key.vkey()
                self.sites.submit_events(one.site, [one.signs(entries.WitnessEnrolled, vkey=vkey)])
        size = self.rooms.recorder.log.size
        held = witnesses.candidate(())
        while held is None or held.size < size:  # a new one is held out at most once a second
            time.sleep(0.05)
            held = witnesses.candidate(())
        for site, signer in signers.items():
            line = signer.cosign(held.signed.note.text, int(time.time()))
            note = Note(text=held.signed.note.text, signatures=(*held.signed.note.signatures, line))
            witnesses.admit(site, note.to_bytes())

    def log(self) -> list[dict[str, Any]]:
        """Every entry of the audit log."""
        return [json.loads(data) for data in self.rooms.recorder.log.entries()]

    def types(self) -> list[str]:
        return [entry["type"] for entry in self.log()]

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return [entry["body"] for entry in self.log() if entry["type"] == kind]


def granted(hospital: Hospital, certificate_pem: bytes, authority: Any) -> Hospital:
    """The hospital with its certificate."""
    hospital.certificate_pem = certificate_pem
    hospital.peer = verify_certificate(certificate_der(certificate_pem), authority, datetime.now(UTC))
    return hospital


@contextmanager
def coordinator_in(parent: Path) -> Iterator[Home]:
    """A new home, opened; or, if there is one in `parent` already, that one opened again."""
    folder = parent / "home"
    if not folder.exists():
        new_home(parent)
    with opened(folder) as coordinator:
        yield Home(folder, coordinator)
