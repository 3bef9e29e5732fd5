"""What the coordinator says about itself when it starts to serve: configuration, software, and what it had to recover.

Only what changed since the last start is said, and of files their digest alone.
"""

import hashlib

import sqlalchemy as sa

from audit import entries
from consortium.contract.software import code_digest, software
from consortium.database import Database, deployed
from consortium.home import CoordinatorHome
from consortium.record import Recorder, now_stamp

CONFIGURATION = "coordinator.yaml"
_SOFTWARE = "software"


def announce_start(home: CoordinatorHome, database: Database, recorder: Recorder) -> None:
    """Log what is new about this coordinator, once for each change."""
    configuration = hashlib.sha256((home.folder / CONFIGURATION).read_bytes()).hexdigest()
    versions, code = software(), code_digest()
    running = hashlib.sha256("\n".join((*versions, code)).encode()).hexdigest()
    said: list[entries.Entry] = []
    with database.transaction() as connection:
        before = {row.part: row.sha256 for row in connection.execute(sa.select(deployed))}
        if recorder.recovered:
            said.append(entries.LogRecovered(**now_stamp(), entries=recorder.recovered))
        if before.get(_SOFTWARE) != running:
            said.append(
                entries.SoftwareDeployed(**now_stamp(), component="coordinator", software=versions, code_sha256=code)
            )
        if before.get(CONFIGURATION) != configuration:
            said.append(
                entries.ConfigChanged(
                    **now_stamp(),
                    file=CONFIGURATION,
                    sha256=configuration,
                    previous_sha256=before.get(CONFIGURATION),
                )
            )
        connection.execute(sa.delete(deployed))
        now = {_SOFTWARE: running, CONFIGURATION: configuration}
        connection.execute(sa.insert(deployed), [{"part": part, "sha256": sha256} for part, sha256 in now.items()])
        recorder.add(connection, [entries.entry_bytes(entry) for entry in said])
    recorder.flush()
