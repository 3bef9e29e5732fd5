"""The home of a hospital of the sample consortium, as its agent left it after the whole study.

It holds a copy of the log, what the hospital signed, what left it, and a certificate that the log names. A test changes
`consortium.lines`, what left, or the home, before `build` or after.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from audit import entries
from audit.cosignature import WitnessSigner
from audit.note import parse_note
from consortium.contract import certificates
from consortium.contract.names import Digest, SiteId, StudyId
from site_agent.egress_rows import EgressRecord
from site_agent.home import AgentHome, Identity, open_home
from site_agent.store import Decision, Store
from tests.fakes.sample_study_log import STUDY, SampleConsortium, key, model_file
from tests.fakes.site_world import NAME as AUTHORITY
from tests.fakes.site_world import keys, new_authority, now

ME = "hungary"
NAME = "sample-consortium"


class EnrolledConsortium(SampleConsortium):
    """The sample consortium, whose log names one hospital's real certificate."""

    def __init__(self, certificate_sha256: str, **options: Any) -> None:
        super().__init__(**options)
        self._certificate_sha256 = certificate_sha256

    def coordinator(self, kind: type[entries.Entry], /, **fields: Any) -> bytes:
        """Append an entry of the coordinator."""
        if kind is entries.SiteEnrolled and fields["site"] == ME:
            fields |= {"certificate_sha256": self._certificate_sha256}
        return super().coordinator(kind, **fields)


class EvidenceHome:
    """The home and everything in it; `build` puts the log's copy and what left there."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder / "home"
        authority = new_authority()
        tls_key, ecdsa_key = certificates.new_tls_key(), certificates.new_ecdsa_key()
        request = certificates.site_request(
            tls_key=tls_key, signing_key=key(ME), ecdsa_key=ecdsa_key, site=SiteId(ME), consortium=AUTHORITY
        )
        pem = certificates.issue_site(authority, SiteId(ME), request, now=now(), valid_for=timedelta(days=365))
        der = certificates.certificate_der(pem)
        self.consortium = EnrolledConsortium(hashlib.sha256(der).hexdigest(), **options)
        for name in ("keys", "certificates"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "keys/signing.pem").write_bytes(certificates.private_pem(key(ME)))
        (self.folder / "keys/signing.pem").chmod(0o600)
        (self.folder / "certificates/ca.pem").write_bytes(authority.certificate_pem)
        (self.folder / "certificates/site.pem").write_bytes(pem)
        identity = Identity(
            consortium=NAME,
            site=ME,
            address="127.0.0.1:9",
            log_vkey=self.consortium.log_signer.verifier.vkey(),
            coordinator_signing_key=keys().coordinator.public_key().public_bytes_raw().hex(),
            ca_sha256=certificates.fingerprint(authority.certificate),
            spki_sha256="0" * 64,
            signing_key=key(ME).public_key().public_bytes_raw().hex(),
            ecdsa_key="0" * 130,
        )
        (self.folder / "identity.json").write_text(identity.model_dump_json())
        self.store = Store(self.folder / "agent.db")
        self._witnesses: list[WitnessSigner] = []

    def witness(self, site: str, *, cosigns: bool = True) -> None:
        """A hospital names its witness key in the log, and cosigns what is copied later."""
        signer = WitnessSigner(f"{self.consortium.log_signer.name}/witness/{site}", key(f"witness {site}"))
        chain = self.consortium.chains[site]
        entry = entries.WitnessEnrolled(
            **self.consortium.stamp(),
            actor=f"site:{site}",
            site_seq=chain.next_seq,
            site_prev=chain.previous,
            vkey=signer.key.vkey(),
        )
        data = entries.sign_site_entry(entry, key(site))
        self.consortium.chains[site] = chain.admit(data, entry)
        self.consortium.lines.append(data)
        if cosigns:
            self._witnesses.append(signer)

    @property
    def home(self) -> AgentHome:
        """As the agent opens it."""
        return open_home(self.folder)

    @property
    def policy(self) -> bytes:
        """What an auditor has from elsewhere."""
        return f"log {self.consortium.log_signer.verifier.vkey()}\nquorum none\n".encode()

    def build(self, *, change: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda sent: sent) -> "EvidenceHome":
        """Remember, send and copy all that is in `consortium.lines`; `change` alters or drops what left."""
        for line in self.consortium.lines:
            entry = entries.parse_entry(line)
            if entry.actor != f"site:{ME}":
                continue
            decision = self._decision() if isinstance(entry, entries.StudyApproved) else None
            self.store.add_events([lambda *_, line=line: line], decision=decision)
            if isinstance(entry, entries.UpdateSubmitted):
                sent = change({"sha256": entry.masked_update_sha256, "size_bytes": entry.size_bytes})
                if sent is not None:
                    self.leaves(**sent)
        self.store.acknowledge(10**6)
        self.copy_log()
        models = self.folder / "models"
        models.mkdir()
        data, name = model_file(self.consortium.rounds)
        (models / f"{name}.safetensors").write_bytes(data)
        return self

    def copy_log(self) -> None:
        """The log as it is becomes the hospital's copy."""
        source = self.folder.parent / "log"
        self.consortium.open_log(source).close()
        shutil.copytree(source, self.folder / "log", dirs_exist_ok=True)
        path = self.folder / "log/public/checkpoint"
        note = parse_note(path.read_bytes())
        lines = [signer.cosign(note.text, 1_795_000_000 + n) for n, signer in enumerate(self._witnesses)]
        path.write_bytes(replace(note, signatures=(*note.signatures, *lines)).to_bytes())

    def leaves(self, sha256: str, size_bytes: int, kind: str = "masked-update") -> None:
        """Something leaves."""
        self.store.record_egress(
            EgressRecord(
                at=1_795_000_000.5,
                kind=kind,
                study_digest=self.consortium.study_digest,
                sha256=sha256,
                size_bytes=size_bytes,
            )
        )

    def _decision(self) -> Decision:
        return Decision(
            study_digest=Digest(self.consortium.study_digest),
            study=StudyId(STUDY),
            document=self.consortium.document,
            decision="approved",
            steward="Dr Ada Steward",
            statement="yes",
            at=1.0,
        )


def whole(folder: Path, **options: Any) -> EvidenceHome:
    """The home after the whole study."""
    made = EvidenceHome(folder)
    made.consortium.whole_study()
    return made.build(**options)
