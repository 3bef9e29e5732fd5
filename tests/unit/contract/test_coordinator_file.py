"""coordinator.yaml: what init writes, what serve reads."""

from pathlib import Path

import pytest

from consortium.contract.errors import FileInvalid
from consortium.coordinator_file import CoordinatorFile, former_options, load_coordinator_file, render


def loaded(tmp_path: Path, text: str) -> CoordinatorFile:
    file = tmp_path / "coordinator.yaml"
    file.write_text(text)
    return load_coordinator_file(file)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("hub.example.org:8443", "hub.example.org/cardio"),
        ("127.0.0.1:65535", "127.0.0.1/cardio"),
        ("[2001:db8::1]:8443", "2001-db8-1/cardio"),
        ("localhost:1", "localhost/cardio"),
    ],
)
def test_what_init_writes_reads_back(tmp_path: Path, address: str, origin: str) -> None:
    file = loaded(tmp_path, render(name="cardio", address=address))
    assert (file.name, file.address) == ("cardio", address)
    assert former_options(tmp_path / "coordinator.yaml") == {}
    assert file.log_origin == origin
    assert file.database_url(tmp_path) == f"sqlite:///{tmp_path.resolve() / 'consortium.db'}"
    assert file.log_folder(tmp_path) == tmp_path / "log"


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("Cardio!", "hub:1"),
        ("cardio", "hub"),
        ("cardio", "hub:99999"),
        ("cardio", 'x"\nname: evil'),
        ("c\nx: 1", "h:1"),
    ],
)
def test_what_init_is_given_wrong_is_found_on_reading_back(tmp_path: Path, name: str, address: str) -> None:
    with pytest.raises(FileInvalid) as caught:
        loaded(tmp_path, render(name=name, address=address))
    assert {problem.path for problem in caught.value.problems} & {"name", "address"}


@pytest.mark.parametrize(
    ("old", "new", "path", "found"),
    [
        ("log_address: null", "log_address: hub.example.org:8443", "log_address", "hub.example.org:8443"),
        ('"hub.example.org:8443"', "hub..org:8443", "address", "hub..org:8443"),
        ('"hub.example.org:8443"', "8443", "address", "8443"),
        ("sqlite:///consortium.db", "mysql://db/x", "database", "mysql://db/x"),
        ("sqlite:///consortium.db", "postgresql://u:pw@db/x", "database", "an address with a password in it"),
        ("sqlite:///consortium.db", "postgresql://db/x?password=pw", "database", "an address with a password in it"),
        ("log_dir: log", "log_dir: ../log", "log_dir", '"../log"'),
        ("log_dir: log", "log_dir: /var/log", "log_dir", '"/var/log"'),
        ('"0.1.0"', "0.1", "minimum_agent_version", "0.1"),
        ('"0.1.0"', '"0.1.x"', "minimum_agent_version", '"0.1.x"'),
        ("hours: 72", "hours: 0", "token_lifetime_hours", "0"),
        ("certificate_days: 90", "certificate_days: 36500", "certificate_days", "36500"),
        ('"hub.example.org/cardio"', "a+b", "log_origin", '"a+b"'),
    ],
)
def test_wrong_options(tmp_path: Path, old: str, new: str, path: str, found: str) -> None:
    text = render(name="cardio", address="hub.example.org:8443")
    assert old in text
    with pytest.raises(FileInvalid) as caught:
        loaded(tmp_path, text.replace(old, new, 1))
    (problem,) = caught.value.problems
    assert problem.path == path
    assert found in problem.found
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("value", ['"hub.example.org:8444"', '"hub.example.org:8443"', "null", "[what, ever]"])
def test_an_option_of_an_earlier_release_is_passed_over_and_named(tmp_path: Path, value: str) -> None:
    """A coordinator that was upgraded starts with the file that it has."""
    text = render(name="cardio", address="hub.example.org:8443")
    assert loaded(tmp_path, f"{text}enrolment_address: {value}\n") == loaded(tmp_path, text)
    loaded(tmp_path, f"{text}enrolment_address: {value}\n")
    options = former_options(tmp_path / "coordinator.yaml")
    assert list(options) == ["enrolment_address"]
    assert "Take the line out" in options["enrolment_address"]
    with pytest.raises(FileInvalid):  # only that one, and only at the uppermost level
        loaded(tmp_path, f"{text}enrolment_port: 1\n")


@pytest.mark.parametrize(
    "url", ["postgresql://lead@db.example.org/consortium", "postgresql+psycopg://db:5432/x?sslmode=require"]
)
def test_postgresql_is_taken_as_it_is(tmp_path: Path, url: str) -> None:
    text = render(name="cardio", address="hub.example.org:8443").replace("sqlite:///consortium.db", url)
    assert loaded(tmp_path, text).database_url(tmp_path) == url
