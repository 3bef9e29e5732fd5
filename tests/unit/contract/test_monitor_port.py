"""The port for monitoring: what it answers, and what it does when nobody should wait for it."""

import asyncio
import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from consortium.contract import monitor_port
from consortium.contract.monitor_port import MonitorPort, MonitorPortUnusable


@contextmanager
def opened(figures=lambda: (), problems=lambda: (), address="127.0.0.1:0"):
    port = MonitorPort(address, figures=figures, problems=problems)
    try:
        yield port
    finally:
        port.close()


def ask(port, path, method="GET"):
    line = http.client.HTTPConnection("127.0.0.1", port.port, timeout=60)
    line.request(method, path)
    answer = line.getresponse()
    try:
        return answer.status, answer.read().decode()
    finally:
        line.close()


async def test_figures_are_those_of_the_moment_they_are_read():
    values = iter((1.5, 2.5))
    with opened(figures=lambda: [GaugeMetricFamily("things", "How many.", value=next(values))]) as port:
        for expected in (1.5, 2.5):
            status, text = await asyncio.to_thread(ask, port, "/metrics")
            (family,) = text_string_to_metric_families(text)
            assert status == 200
            assert [(sample.name, sample.value) for sample in family.samples] == [("things", expected)]


async def test_ready_is_who_has_no_problem_and_each_problem_has_its_line():
    problems = ["the log takes no entries: the disk is full", "another"]
    with opened(problems=lambda: problems) as port:
        assert await asyncio.to_thread(ask, port, "/readyz") == (503, "".join(f"{one}\n" for one in problems))
        problems.clear()
        assert await asyncio.to_thread(ask, port, "/readyz") == (200, "ok\n")
        assert await asyncio.to_thread(ask, port, "/healthz") == (200, "ok\n")
        assert (await asyncio.to_thread(ask, port, "/etc/passwd"))[0] == 404
        assert (await asyncio.to_thread(ask, port, "/metrics", "POST"))[0] == 405


async def test_a_loop_that_hangs_is_not_healthy(monkeypatch):
    monkeypatch.setattr(monitor_port, "ANSWER_S", 0.05)
    with opened() as port, ThreadPoolExecutor(1) as elsewhere:
        # The loop stands still until the answer is there: this is the hang.
        assert elsewhere.submit(ask, port, "/healthz").result() == (503, "the event loop does not answer\n")


async def test_readers_who_say_nothing_keep_nobody_waiting(monkeypatch):
    monkeypatch.setattr(monitor_port, "READERS_MAX", 2)
    monkeypatch.setattr(monitor_port._Handler, "timeout", 0.2)
    with opened() as port:
        silent = [socket.create_connection(("127.0.0.1", port.port)) for _ in range(4)]
        for one in silent:
            one.settimeout(60)
            assert await asyncio.to_thread(one.recv, 1) == b""  # cut off: at once, or when its time is up
            one.close()
        assert await asyncio.to_thread(ask, port, "/readyz") == (200, "ok\n")


async def test_a_port_in_use_is_said_in_one_line():
    with opened() as port, pytest.raises(MonitorPortUnusable, match=f"127.0.0.1:{port.port}.*it is in use"):
        MonitorPort(f"127.0.0.1:{port.port}", figures=lambda: (), problems=lambda: ())
