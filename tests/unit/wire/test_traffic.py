"""What passes on a line: in all, and how fast, by a clock that is told."""

from consortium.wire.traffic import WINDOW_S, Passed, Traffic, counter


def test_totals_stay_and_rates_end_with_the_window() -> None:
    now = [100.0]
    traffic = Traffic(lambda: now[0])
    assert traffic.passed() == Passed(sent_bytes=0, received_bytes=0, sent_per_s=0, received_per_s=0)
    for _ in range(10):  # ten seconds of 2,000 bytes up; the last five count
        for _ in range(2):
            assert counter(traffic.sent)(b"x" * 1000) == b"x" * 1000
        counter(traffic.received)(b"y" * 50)
        now[0] += 1
    passed = traffic.passed()
    assert (passed.sent_bytes, passed.received_bytes) == (20_000, 500)
    assert (passed.sent_per_s, passed.received_per_s) == (2000, 50)
    assert passed.words(up="up", down="down") == "20.0 kB up (2.0 kB/s now), 500 B down (50 B/s now)"
    assert passed.to_json() == {"sent_bytes": 20_000, "received_bytes": 500, "sent_per_s": 2000, "received_per_s": 50}
    now[0] += WINDOW_S + 1
    rest = traffic.passed()
    assert (rest.sent_bytes, rest.sent_per_s, rest.received_per_s) == (20_000, 0, 0)
    assert rest == traffic.passed()  # nothing moves: nothing new to show
