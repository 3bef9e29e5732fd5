"""`traffic.json`: written when something passed, read for a person, and nobody's ruin when it is damaged."""

from pathlib import Path

from consortium.wire.traffic import Passed, Traffic
from site_agent.cli import _traffic_line
from site_agent.traffic_file import NAME, TrafficFile, read_traffic


def test_it_is_written_when_something_passed(tmp_path: Path) -> None:
    traffic = Traffic(lambda: 7.0)
    file = TrafficFile(tmp_path, traffic)
    assert read_traffic(tmp_path) is None
    traffic.sent(5_000_000)
    file.step()
    found = read_traffic(tmp_path)
    assert found is not None
    assert found.passed == Passed(sent_bytes=5_000_000, received_bytes=0, sent_per_s=1_000_000, received_per_s=0)
    assert "5.0 MB up (1.0 MB/s now), 0 B down (0 B/s now), at " in _traffic_line(found)
    (tmp_path / NAME).unlink()
    file.step()
    assert read_traffic(tmp_path) is None  # nothing new: the disk is left alone


def test_a_damaged_file_or_folder_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"at": 1}')
    assert read_traffic(tmp_path) is None
    assert "nothing has passed" in _traffic_line(None)
    traffic = Traffic()
    traffic.sent(1)
    TrafficFile(tmp_path / "gone", traffic).step()
