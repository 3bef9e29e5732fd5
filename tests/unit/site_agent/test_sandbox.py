"""What a training process gives up, each means by itself, and what the report says where one is missing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from site_agent import landlock, sandbox, sandbox_limits, syscall_filter
from site_agent.kernel_calls import Missing
from site_agent.landlock import DEVICE, READ, WRITE, Grant, Right
from site_agent.sandbox import Confinement, child_environment, confine
from site_agent.sandbox_paths import grants

HEAD = """
import json, os, signal, socket, sys, threading, time
from pathlib import Path
from site_agent import landlock, sandbox_limits, syscall_filter
from site_agent.sandbox import Confinement, confine

def tried(attempt):
    try:
        attempt()
    except OSError as error:
        return error.strerror
    return "done"
"""


def _child(code: str, *arguments: object, returncode: int = 0) -> str:
    """Run `code` in a process of its own, which alone is confined; what it printed."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", HEAD + code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == returncode, done.stderr
    return done.stdout


def _landlock_version() -> int:
    try:
        return landlock.version()
    except Missing:
        return 0


def _needs_landlock(version: int) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        _landlock_version() < version, reason=f"this kernel has Landlock {_landlock_version()}; {version} is needed"
    )


@_needs_landlock(4)
def test_landlock_alone_refuses_tcp() -> None:
    """A second lock on the same door: the filter is not set here."""
    code = """
listening = socket.create_server(("127.0.0.1", 0))
sandbox_limits.no_new_privileges()
landlock.restrict(())
print(tried(lambda: socket.create_connection(listening.getsockname())), tried(lambda: socket.socket().bind(("", 0))))
"""
    assert _child(code) == "Permission denied Permission denied\n"


@_needs_landlock(6)
def test_landlock_alone_keeps_signals_and_abstract_sockets_in() -> None:
    code = """
name = f"\\0training-{os.getpid()}"
here, there = socket.socketpair()
if (child := os.fork()) == 0:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen()
        here.send(b"x")
        here.recv(1)
    os._exit(0)
there.recv(1)
sandbox_limits.no_new_privileges()
landlock.restrict(())
def connect():
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(name)
print(tried(lambda: os.kill(child, 0)), "|", tried(connect))
there.send(b"x")
"""
    assert _child(code) == "Operation not permitted | Operation not permitted\n"


@_needs_landlock(1)
def test_threads_that_ran_before_are_said_to_be_free() -> None:
    code = """
stop = threading.Event()
threading.Thread(target=stop.wait, daemon=True).start()
confined = confine(Confinement(readable=(), writable=()))
print([(rule.name, rule.words) for rule in confined.missing])
"""
    assert _child(code) == "[('files', '2 threads ran already, and only one of them is bound')]\n"


def test_processor_time_ends_it() -> None:
    code = "confine(Confinement(readable=(), writable=(), processor_s=1))\nwhile True: pass\n"
    _child(code, returncode=-signal.SIGXCPU)


def test_it_ends_with_the_process_that_started_it() -> None:
    """The one between is killed, as the agent may be; the line that its child holds closes when the child is gone."""
    child = """
confined = confine(Confinement(readable=(), writable=(), parent=os.getppid()))
os.write(1, b"confined\\n" if "ends with the agent" not in [rule.name for rule in confined.missing] else b"not\\n")
signal.pause()
"""
    between = """
import subprocess
subprocess.run([sys.executable, "-I", "-c", sys.argv[1]])
"""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", HEAD + between, HEAD + child], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"confined\n"
        process.kill()
        assert process.stdout.read() == b""


def test_a_parent_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_limits, "process_control", lambda *_: None)
    with pytest.raises(Missing, match="another process, or gone"):
        sandbox_limits.end_with(os.getpid())


def test_what_is_missing_is_reported_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel interface at all, as on another system. Nothing here confines the tests themselves."""

    def missing(*_: object, **__: object) -> None:
        raise Missing("not on this kernel")

    for module, name in (
        (landlock, "restrict"), (syscall_filter, "restrict"), (sandbox_limits, "limit"),
        (sandbox_limits, "end_with"), (sandbox_limits, "be_killed_first"), (sandbox_limits, "no_new_privileges"),
        (sandbox_limits, "drop_capabilities"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, missing)
    monkeypatch.setattr(sandbox, "keep_memory_private", lambda: None)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    confined = confine(Confinement(readable=(), writable=(), memory_bytes=1, processor_s=1, parent=1))
    assert [rule.name for rule in confined.rules if rule.enforced] == ["no core file"]
    assert {rule.words for rule in confined.missing} == {"not on this kernel"}
    assert confined.words.startswith("enforced: no core file; not enforced: files within bounds (not on this kernel)")
    assert confined.to_json()[0]["enforced"] is True


def test_another_processor_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (syscall_filter, sandbox_limits):
        monkeypatch.setattr(module, "machine", lambda: "riscv64")
    with pytest.raises(Missing, match="riscv64"):
        syscall_filter.restrict()
    with pytest.raises(Missing, match="riscv64"):
        sandbox_limits.drop_capabilities()


def test_rights_of_root_are_gone() -> None:
    code = """
confine(Confinement(readable=(), writable=()))
status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
print(json.dumps({name: status[name].strip() for name in ("CapEff", "CapPrm", "NoNewPrivs")}))
print(Path("/proc/self/oom_score_adj").read_text().strip(), oct(os.umask(0)))
"""
    facts, rest = _child(code).splitlines()
    assert json.loads(facts) == {"CapEff": "0" * 16, "CapPrm": "0" * 16, "NoNewPrivs": "1"}
    assert rest == "1000 0o77"


def test_paths_that_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data to read, scratch to write, Python; neither the folder it was started in nor anybody's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", f":relative:{tmp_path / 'libraries'}")
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    given = grants((data,), (scratch,), gpu=False)
    assert {Grant(data, READ), Grant(scratch, WRITE), Grant(Path(sys.prefix), READ)} < set(given)
    assert Grant(tmp_path / "libraries", READ) in given
    paths = {grant.path for grant in given}
    assert not paths & {tmp_path, Path("/"), Path.home(), Path("/etc"), Path("/proc"), Path("/dev"), Path("/tmp")}
    assert not [grant for grant in given if grant.rights & Right.EXECUTE]
    assert {grant.path for grant in given if grant.rights & Right.WRITE_FILE and grant.rights != DEVICE} == {scratch}


def test_a_gpu_is_opened_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidiactl", "nvidia0", "sda"):
        (tmp_path / name).touch()
    monkeypatch.setattr("site_agent.sandbox_paths._DEVICES", tmp_path)
    found = [{grant for grant in grants((), (), gpu=gpu) if grant.path.parent == tmp_path} for gpu in (True, False)]
    assert found == [{Grant(tmp_path / name, DEVICE) for name in ("nvidiactl", "nvidia0")}, set()]


def test_variables_with_secrets_stay_behind(tmp_path: Path) -> None:
    inherited = {
        "PATH": "/bin",
        "https_proxy": "http://user:word@proxy",
        "DATABASE_URL": "x",
        "RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    environment = child_environment(inherited, tmp_path)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["HOME"] == environment["TMPDIR"] == str(tmp_path)
    assert not {"https_proxy", "DATABASE_URL", "RANK"} & set(environment)
