"""One agent for one home."""

import os

import pytest

from site_agent.home import HomeInvalid
from site_agent.only_agent import FILE, AgentRunning, only_agent


def test_a_second_one_is_refused_and_the_first_is_named(tmp_path):
    with only_agent(tmp_path):
        with (
            pytest.raises(
                AgentRunning, match=rf"is running with {tmp_path} already \(process {os.getpid()}\)"
            ) as caught,
            only_agent(tmp_path),
        ):
            pass
        assert "was not disturbed" in caught.value.advice()
        assert caught.value.code == "conflict"  # exit code 1: a service manager does not try again
    with only_agent(tmp_path):  # the lock ends, the file stays
        assert (tmp_path / FILE).read_text() == f"{os.getpid()}\n"


def test_who_holds_it_may_not_be_readable(tmp_path):
    with only_agent(tmp_path):
        (tmp_path / FILE).write_text("not a number")
        with pytest.raises(AgentRunning, match="process unknown"), only_agent(tmp_path):
            pass


def test_no_folder(tmp_path):
    with pytest.raises(HomeInvalid, match="No such file"), only_agent(tmp_path / "gone"):
        pass
