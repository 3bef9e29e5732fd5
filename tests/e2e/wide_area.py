"""Hospitals behind firewalls and a slow line: real network namespaces, nftables, and packets that take their time.

Every hospital has a namespace of its own, and so has the coordinating centre. Each has one interface (TUN), whose
packets `WideAreaLine` carries to the others: with a delay, with losses, or not at all while a hospital is cut off. It
does what `tc netem` does, in this process, because many kernels of test machines come without netem.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.world import SITES, World

PREFIX = "consortium-test-"
CENTRE = "centre"
CENTRE_ADDRESS = "10.77.0.1"
STRANGER_ADDRESS = "10.77.0.2"
"""At the centre too, and nothing of the consortium's."""
PORT = 8443
ONE_WAY_S = 0.05
LOSS = 0.01
PACKET_BYTES = 1500
_TUNSETIFF, _TUN_WITHOUT_HEADER = 0x400454CA, 0x1001
_FIREWALL = """
table inet hospital {{
  chain inbound {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established accept
  }}
  chain outbound {{
    type filter hook output priority 0; policy drop;
    oif lo accept
    ip daddr {centre} tcp dport {port} accept
  }}
}}
"""


def why_not() -> str | None:
    """What this machine lacks for namespaces of its own; None if nothing."""
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    if missing := [tool for tool in ("ip", "nft") if shutil.which(tool) is None]:
        return f"not installed here: {', '.join(missing)} (Debian: iproute2, nftables)"
    if not Path("/dev/net/tun").exists():
        return "this kernel or container has no /dev/net/tun"
    name = f"{PREFIX}{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"no network namespace can be made here: {tried.stderr.strip()}"
    rules = subprocess.run(
        ["ip", "netns", "exec", name, "nft", "list", "ruleset"], capture_output=True, text=True, check=False
    )
    subprocess.run(["ip", "netns", "delete", name], check=False)
    return None if rules.returncode == 0 else f"nftables does not work here: {rules.stderr.strip()}"


class WideAreaLine:
    """Carries packets between interfaces, in a thread of its own.

    `cut` may be changed at any time. `packets_left` says after how many more packets of a sender it is cut off: in the
    middle of what it does, however fast that goes.
    """

    def __init__(self, *, one_way_s: float, loss: float) -> None:
        self.cut: set[str] = set()
        self.packets_left: dict[str, int] = {}
        self.carried = self.lost = 0
        self._one_way_s, self._loss = one_way_s, loss
        self._random = random.Random(20)
        self._names: dict[bytes, str] = {}
        self._interfaces: dict[str, int] = {}
        self._on_the_way: list[tuple[float, int, str, bytes]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="wide-area-line")

    def attach(self, name: str, interface: int, addresses: tuple[str, ...]) -> None:
        """Before `start`: where packets to these addresses go."""
        self._interfaces[name] = interface
        for address in addresses:
            self._names[bytes(map(int, address.split(".")))] = name

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        for interface in self._interfaces.values():
            os.close(interface)

    def _carry(self) -> None:
        senders = {interface: name for name, interface in self._interfaces.items()}
        while not self._ended.is_set():
            due_s = self._on_the_way[0][0] - time.monotonic() if self._on_the_way else 0.1
            ready, _, _ = select.select(list(senders), [], [], min(max(due_s, 0.0), 0.1))
            for interface in ready:
                self._take(senders[interface], os.read(interface, PACKET_BYTES))
            while self._on_the_way and self._on_the_way[0][0] <= time.monotonic():
                _, _, name, packet = heapq.heappop(self._on_the_way)
                with contextlib.suppress(OSError):  # its interface is down: a namespace is being deleted
                    os.write(self._interfaces[name], packet)

    def _take(self, sender: str, packet: bytes) -> None:
        receiver = self._names.get(packet[16:20]) if packet[0] >> 4 == 4 else None  # IPv4 only
        if receiver is None:
            return
        if (left := self.packets_left.get(sender)) is not None:
            self.packets_left[sender] = left - 1
            if left == 0:
                self.cut.add(sender)
                del self.packets_left[sender]
        if {sender, receiver} & self.cut or self._random.random() < self._loss:
            self.lost += 1
            return
        self.carried += 1
        heapq.heappush(self._on_the_way, (time.monotonic() + self._one_way_s, self.carried, receiver, packet))


class WideAreaWorld(World):
    """The consortium of `world.py`, each of its processes in the namespace where it belongs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.line = WideAreaLine(one_way_s=ONE_WAY_S, loss=LOSS)
        self._places = (CENTRE, *SITES)

    # --- namespaces ---

    def build(self) -> None:
        """Namespaces, interfaces, firewalls, and the line between them."""
        for number, place in enumerate(self._places):
            space = _namespace(place)
            _ip("netns", "add", space)
            addresses = (CENTRE_ADDRESS, STRANGER_ADDRESS) if place == CENTRE else (f"10.77.0.{10 + number}",)
            interface = f"ctest{os.getpid() % 100_000}-{number}"
            self.line.attach(place, _tun(interface), addresses)
            _ip("link", "set", interface, "netns", space)
            for address in addresses:
                _ip("-n", space, "address", "add", f"{address}/24", "dev", interface)
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", interface, "mtu", str(PACKET_BYTES), "up")
            if place != CENTRE:
                self.at(place, "nft", "-f", "-", given=_FIREWALL.format(port=PORT, centre=CENTRE_ADDRESS))
        self.line.start()

    def demolish(self) -> None:
        """Processes, line and namespaces, whatever has happened; what is already gone is no error."""
        self.stop()
        self.line.stop()
        for place in self._places:
            subprocess.run(["ip", "netns", "delete", _namespace(place)], capture_output=True, check=False)

    def at(self, place: str, *command: str, given: str | None = None) -> str:
        """A command in a namespace, to its end."""
        done = subprocess.run(
            self.command_at(place, list(command)), input=given, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command} at {place}: {done.stdout}{done.stderr}"
        return done.stdout

    def command_at(self, place: str, command: list[str]) -> list[str]:
        """A command as it is started in a namespace; `ip` becomes it, so a signal reaches it."""
        return ["ip", "netns", "exec", _namespace(place), *command]

    def address(self, site: str) -> str:
        return f"10.77.0.{10 + self._places.index(site)}"

    # --- the commands of the consortium, each where it is typed ---

    def create(self) -> None:
        self.run("consortium", "init", self.home, "--name", "test", "--address", f"{CENTRE_ADDRESS}:{PORT}")

    def typed(self, command: tuple[object, ...]) -> list[str]:
        place = next((site for site in SITES if self.folder / site in command), CENTRE)
        return self.command_at(place, super().typed(command))


@contextlib.contextmanager
def wide_area(folder: Path) -> Iterator[WideAreaWorld]:
    """A world of this kind, and nothing left of it."""
    _remove_what_was_left()
    world = WideAreaWorld(folder)
    try:
        world.build()
        yield world
    finally:
        world.demolish()


def _remove_what_was_left() -> None:
    """Namespaces of a test process that was killed, and the processes in them."""
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        owner = name.removeprefix(PREFIX).split("-")[0]
        if name.startswith(PREFIX) and not Path(f"/proc/{owner}").exists():
            for process in _ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _namespace(place: str) -> str:
    return f"{PREFIX}{os.getpid()}-{place}"


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {arguments}: {done.stderr}"
    return done.stdout


def _tun(name: str) -> int:
    interface = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(interface, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_HEADER))
    return interface
