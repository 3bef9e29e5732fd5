"""A vault on a disk and a log in memory, for erasures that die halfway.

    world = VaultWorld(tmp_path)
    kept = world.declared(b"words", subject="Ada Example")
    world.erase(kept.id)

The log is a list of entries, as a coordinator writes them. Whatever is named in `dies` raises `Died` when it is called,
as a process is killed there; `again()` is the next process.
"""

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from audit.entries import ErasureExecuted, IncidentClosed, entry_bytes, parse_entry, stamp
from audit.erasure import Wanted, erase, finish
from audit.vault import About, Kept, seal
from audit.vault_files import Order, VaultFiles

STAMP = stamp(1_795_000_000_000, bytes(10))
EVE = "u:" + "e" * 32
DAY = "2026-11-23"


class Died(BaseException):
    """The process is gone."""


class DyingVault(VaultFiles):
    """A vault whose process can be killed before a call."""

    dies = ""

    def destroy(self, payload: str) -> None:
        self._maybe("destroy")
        super().destroy(payload)

    def forget(self, pseudonym: str) -> None:
        self._maybe("forget")
        super().forget(pseudonym)

    def order(self, order: Order) -> None:
        self._maybe("told" if order.told else "order")
        super().order(order)

    def _maybe(self, step: str) -> None:
        if self.dies == step:
            raise Died(step)


class VaultWorld:
    """One keeper: its folder, its log."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.vault = DyingVault(home)
        self.log: list[bytes | None] = []
        self.forgotten: list[tuple[str, str]] = []
        self.readable_when_told: list[bytes] = []
        self._ids = (f"{number:016x}" for number in itertools.count(1))

    # --- audit.erasure.Told ---

    def entries(self) -> Iterable[tuple[int | None, bytes | None]]:
        return enumerate(self.log)

    def write(self, fields: Mapping[str, Any]) -> None:
        self.vault._maybe("write")
        self.readable_when_told += [path.read_bytes() for path in (self.home / "vault/sealed").iterdir()]
        self.log.append(entry_bytes(ErasureExecuted(**STAMP, **fields)))

    def forget(self, pseudonym: str, name: str) -> None:
        self.forgotten.append((pseudonym, name))

    # --- what a keeper does ---

    def sealed(self, payload: bytes, *, subject: str = "Ada Example", study: str | None = None) -> Kept:
        """Kept, and named by no entry."""
        about = About(
            fact="incident.closed",
            part="note",
            subject=self.vault.pseudonym(subject),
            study=study,
            kept_at="2026-11-23T08:00:00.000Z",
        )
        one = seal(payload, about, os.urandom)
        with self.vault.locked():
            return self.vault.keep(one)

    def declared(self, payload: bytes, *, subject: str = "Ada Example", study: str | None = None) -> Kept:
        """Kept, and named by an entry."""
        kept = self.sealed(payload, subject=subject, study=study)
        fact = IncidentClosed(**STAMP, study=study, incident="2026-07", summary="over", note_commitment=kept.commitment)
        self.log.append(entry_bytes(fact))
        return kept

    def erase(self, *payloads: str, subject: str | None = None) -> tuple[str, ...]:
        wanted = Wanted(payloads=payloads, subject=subject)
        return erase(self.vault, self, wanted, on_behalf=EVE, today=DAY, ids=self._ids)

    def again(self) -> int:
        """The next process; how many orders it carried out."""
        self.vault = DyingVault(self.home)
        return finish(self.vault, self)

    def erasures(self) -> list[ErasureExecuted]:
        """What the log says of erasures."""
        found = [parse_entry(data) for data in self.log if data is not None]
        return [entry for entry in found if isinstance(entry, ErasureExecuted)]

    def bytes_on_disk(self) -> bytes:
        """Every byte of every file of the home."""
        return b"".join(path.read_bytes() for path in sorted(self.home.rglob("*")) if path.is_file())
