"""Disk, memory and folders of the machine an agent runs on."""

import json
import os
from types import SimpleNamespace

import pytest
import yaml

from site_agent import check_machine
from site_agent.check_machine import available_bytes, check_confinement, check_disk, check_folders, check_memory
from site_agent.check_result import CheckFailed, CheckWarns
from site_agent.sandbox import Confined, Rule
from tests.fakes.site_world import make_home, small_study

GIB = 2**30


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(check_machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free_of[0]))
    free_of = [GIB]
    made = make_home(tmp_path / "home", small_study())
    made.folder.chmod(0o700)
    return made, free_of


def with_images(home):
    path = home.folder / "site.yaml"
    record = yaml.safe_load(path.read_text())
    record["datasets"]["films"] = {"path": "films", "format": "image-folder", "table": "t.csv", "declared_patients": 8}
    record["cache_gib"] = 3
    path.write_text(yaml.safe_dump(record))


def test_a_disk_needs_what_the_cache_may_still_take(home):
    made, free = home
    found = check_disk(made)  # 500 MiB, and five models of at most 64 MiB: no images, no cache
    assert found.endswith("needed at most 820 MiB (logs and ledger 500 MiB, models 320 MiB)")
    with_images(made)
    with pytest.raises(CheckWarns, match=r"images \(cache_gib\) 3\.0 GiB") as caught:
        check_disk(made)
    assert "cache_gib" in caught.value.advice()
    made.images.folder.mkdir()
    with (made.images.folder / "entry").open("wb") as file:
        file.truncate(3 * GIB)  # it is there already, and needs no more room
    assert "images (cache_gib) 0 MiB" in check_disk(made)
    free[0] = 2**20
    with pytest.raises(CheckFailed, match="1 MiB free") as caught:
        check_disk(made)
    assert not isinstance(caught.value, CheckWarns)


def test_memory_within_what_is_allowed(home, tmp_path, monkeypatch):
    meminfo, own, cgroup = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "groups"
    group = cgroup / "system.slice/site-agent.service"
    group.mkdir(parents=True)
    meminfo.write_text("MemTotal: 9999 kB\nMemAvailable:    8388608 kB\n")
    own.write_text("0::/system.slice/site-agent.service\n")
    assert available_bytes(meminfo, cgroup, own) == 8 * GIB
    for folder, most, used in ((group, "max", GIB), (group.parent, str(3 * GIB), GIB)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    assert available_bytes(meminfo, cgroup, own) == 2 * GIB  # the slice allows no more
    assert available_bytes(tmp_path / "none", cgroup, own) is None
    made, _ = home
    monkeypatch.setattr(check_machine, "available_bytes", lambda: 8 * GIB)
    assert check_memory(made) == "8.0 GiB can be had; a round may need 1.3 GiB beside its patients' records"
    monkeypatch.setattr(check_machine, "available_bytes", lambda: GIB)
    with pytest.raises(CheckWarns, match=r"may need 1\.3 GiB"):
        check_memory(made)


def test_folders_that_cannot_be_written_or_that_others_can_read(home, monkeypatch):
    made, _ = home
    assert check_folders(made).endswith("nobody else may look into it")
    assert [path.name for path in made.folder.iterdir() if path.name.startswith(".check-")] == []

    def read_only(**given):
        if str(given["dir"]).endswith("keys"):
            raise OSError(30, "Read-only file system")
        return real(**given)

    real = check_machine.tempfile.NamedTemporaryFile
    with monkeypatch.context() as patch:
        patch.setattr(check_machine.tempfile, "NamedTemporaryFile", read_only)
        with pytest.raises(CheckFailed, match="keys cannot be written: Read-only file system") as caught:
            check_folders(made)
    assert "ReadWritePaths" in caught.value.advice()
    made.folder.chmod(0o750)
    with pytest.raises(CheckWarns, match="mode 0750"):
        check_folders(made)
    (made.folder / "agent.db").touch()
    monkeypatch.setattr(check_machine.os, "access", lambda *_: False)
    with pytest.raises(CheckFailed, match=r"agent\.db may not be written"):
        check_folders(made)
    monkeypatch.undo()
    monkeypatch.setattr(check_machine.os, "geteuid", lambda: made.folder.stat().st_uid + 1)
    with pytest.raises(CheckWarns, match="belongs to account") as caught:
        check_folders(made)
    assert f"{os.getuid() + 1}" in str(caught.value)


def test_confinement_is_tried_and_what_is_missing_is_a_warning(monkeypatch):
    """A process of its own is confined; whether this machine of tests enforces all of it is not what this is about."""
    try:
        found = check_confinement()
    except CheckWarns as warning:
        found = str(warning)
    assert "no core file" in found.split("; not enforced: ")[0]

    rules = (Rule(name="files", enforced=False, words="no Landlock"), Rule(name="no network", enforced=True, words="x"))
    answered = SimpleNamespace(returncode=0, stdout=json.dumps(Confined(rules=rules).to_json()), stderr="")
    monkeypatch.setattr(check_machine.subprocess, "run", lambda *_, **__: answered)
    with pytest.raises(CheckWarns, match=r"enforced: no network; not enforced: files \(no Landlock\)") as caught:
        check_confinement()
    assert "Linux 5.13" in caught.value.advice()
    answered.returncode, answered.stderr = -9, "killed"
    with pytest.raises(CheckFailed, match="ended with -9: killed"):
        check_confinement()
