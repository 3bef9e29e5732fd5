"""A real PostgreSQL of its own for a test: made in a temporary folder, on a Unix socket, stopped with the test.

It refuses to run as root, so under root it runs as `postgres` or `nobody`.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
ABSENT = "PostgreSQL is not installed here (apt-get install postgresql)"
START_S = 60
USER = "consortium"


def installed() -> bool:
    return bool(PROGRAMS) or shutil.which("postgres") is not None


class Server:
    """One server. `url` leads to an empty schema of the caller's name."""

    def __init__(self) -> None:
        found = shutil.which("postgres")
        self._bin = PROGRAMS[-1].parent if PROGRAMS else Path(found or "").parent
        self._folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path has at most 107 characters
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            name = "postgres" if any(user.pw_name == "postgres" for user in pwd.getpwall()) else "nobody"
            self._as = {"user": name, "cwd": "/", "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}}
            shutil.chown(self._folder, name)
        make = [self._bin / "initdb", "-D", self._folder / "data", "-A", "trust", "-U", USER, "-E", "UTF8", "-N"]
        subprocess.run(make, check=True, capture_output=True, **self._as)
        self.start()

    def start(self, *settings: str) -> None:
        """Start, with settings such as `fsync=off` for this time."""
        command = [self._bin / "postgres", "-D", self._folder / "data", "-k", self._folder, "-h", ""]
        for setting in ("shared_buffers=8MB", "max_connections=10", *settings):
            command += ["-c", setting]
        with (self._folder / "errors").open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as)
        give_up = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > give_up or self._process.poll() is not None:
                raise RuntimeError((self._folder / "errors").read_text()[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.address(), autocommit=True).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """As when the power fails, as far as processes go: no checkpoint, no goodbye."""
        self._process.send_signal(signal.SIGQUIT)  # "immediate shutdown": recovery at the next start
        self._process.wait()

    def address(self, schema: str = "public") -> str:
        return f"postgresql://{USER}@localhost/postgres?host={self._folder}&options=-csearch_path%3D{schema}"

    def url(self, schema: str) -> str:
        """An address whose tables are in a schema that is made now, if there is none of this name."""
        self.run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        return self.address(schema)

    def run(self, statement: str, schema: str = "public") -> None:
        with psycopg.connect(self.address(schema), autocommit=True) as connection:
            connection.execute(statement)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)


def running() -> Iterator[Server]:
    """For a fixture: a server for as long as its tests run, which are skipped where PostgreSQL is not installed."""
    if not installed():
        pytest.skip(ABSENT)
    server = Server()
    yield server
    server.close()
