"""A whole study between hospitals behind firewalls, over a line with 100 ms and losses, part of which goes silent.

Each process is in a network namespace of its own. A hospital's firewall drops all that comes in, and lets out what goes
to one port of one host, from the first call on: enrolling needs no other.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import wide_area
from tests.e2e.wide_area import CENTRE, CENTRE_ADDRESS, PORT, STRANGER_ADDRESS, WideAreaWorld
from tests.e2e.world import SITES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = 6
PACKETS_LEFT = 80
"""After the study was started: in one of its first rounds, of which each takes dozens."""
WAIT_S = 240
CUT_OFF = SITES[2:]
"""Two of four: fewer than the threshold of three are left, so the study has to wait for one of them."""

ELSEWHERE = 9000
DIAL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
    print("connected")
except OSError:
    print("refused")
"""
LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("listening", flush=True)
    while True:
        server.accept()[0].close()
"""


def test_a_study_runs_through_firewalls_and_outlives_silence(tmp_path: Path) -> None:
    if (reason := wide_area.why_not()) is not None:
        pytest.skip(reason)
    with wide_area.wide_area(tmp_path) as world:
        world.create()
        world.start_coordinator()
        with ThreadPoolExecutor() as together:
            list(together.map(lambda site: enrol(world, site), SITES))
        the_firewall_is_real(world)
        for site in SITES:
            world.start_agent(site)
        world.submit(rounds=ROUNDS, every_rounds=ROUNDS)

        for site in CUT_OFF:
            world.line.packets_left[site] = PACKETS_LEFT  # then no reset, no word: packets stop
        study = world.wait_until(
            lambda study: [one["site"] for one in study["sites"] if one["state"] == "away"] == [*CUT_OFF],
            timeout_s=WAIT_S,
        )
        assert study["state"] == "running"
        for site in CUT_OFF:
            until_said(world, site, "coordinator.away")  # found out at this end, too
        world.line.cut.clear()
        study = world.wait_until(lambda study: study["state"] != "running", timeout_s=WAIT_S)

        assert study["state"] == "completed"
        assert len([one for one in study["history"] if one["kind"] == "train"]) == ROUNDS
        assert world.verified_evidence().rstrip().endswith("VERIFIED")
        assert world.line.lost > 0


def enrol(world: WideAreaWorld, site: str) -> None:
    """Through the firewall as it stands."""
    world.enrol(site)
    world.steward(site)


def the_firewall_is_real(world: WideAreaWorld) -> None:
    """A hospital reaches the coordinator's port; no other port, no other host; and nobody reaches the hospital."""
    site = SITES[0]
    assert dial(world, site, CENTRE_ADDRESS, PORT) == "connected"
    with listening(world, CENTRE, CENTRE_ADDRESS):
        assert dial(world, CENTRE, CENTRE_ADDRESS, ELSEWHERE) == "connected"
        assert dial(world, site, CENTRE_ADDRESS, ELSEWHERE) == "refused"  # another port of the same host
    for place, address, dialling in (
        (CENTRE, STRANGER_ADDRESS, site),
        (site, world.address(site), CENTRE),
        (site, world.address(site), SITES[1]),
    ):
        with listening(world, place, address):
            assert dial(world, place, address, ELSEWHERE) == "connected"  # it does listen
            assert dial(world, dialling, address, ELSEWHERE) == "refused"


def until_said(world: WideAreaWorld, name: str, words: str) -> None:
    end = time.monotonic() + WAIT_S
    while words not in world.log(name):
        assert time.monotonic() < end, world.log(name)[-2000:]
        time.sleep(0.1)


def dial(world: WideAreaWorld, place: str, address: str, port: int) -> str:
    return world.at(place, sys.executable, "-c", DIAL, address, str(port)).strip()


@contextmanager
def listening(world: WideAreaWorld, place: str, address: str) -> Iterator[None]:
    """Somebody who would take any connection."""
    command = world.command_at(place, [sys.executable, "-c", LISTEN, address, str(ELSEWHERE)])
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield
        finally:
            process.kill()
