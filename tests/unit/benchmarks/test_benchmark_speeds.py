"""The speed benchmarks on sizes that take milliseconds: that they compare what they say they compare."""

import numpy as np
import pytest

from tests.benchmarks import client_cost, coordinator_sum, mask_stream, mersenne_twister
from tests.benchmarks.mask_stream import OpensslUnusable, openssl_bytes_per_s, parse_speed


def test_the_speed_of_openssl_is_its_last_figure() -> None:
    assert parse_speed("+H:8192\n+F:25:AES-256-CTR:7126493866.67\n") == 7126493866.67


@pytest.mark.parametrize("output", ["", "speed: Unknown algorithm aes-256-ctr\n"])
def test_an_openssl_that_measured_nothing_is_said(output: str) -> None:
    with pytest.raises(OpensslUnusable, match="printed no result"):
        parse_speed(output)


def test_a_machine_without_openssl_gets_a_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_stream, "OPENSSL", ("no-such-program-here",))
    with pytest.raises(OpensslUnusable, match="no usable `openssl` program"):
        openssl_bytes_per_s()
    (figure,) = mask_stream.measure(length=1000, repeats=1, passes=1)
    assert figure.value is None
    assert "no usable `openssl` program on this machine" in figure.note


def test_our_stream_is_compared_with_what_openssl_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_stream, "openssl_bytes_per_s", lambda: 1.0)
    (figure,) = mask_stream.measure(length=100_000, repeats=3, passes=20)
    assert figure.value is not None
    assert figure.value > 1e6  # bytes per second, over 1
    assert figure.spread is not None
    assert figure.spread[0] <= figure.value <= figure.spread[1]


def test_the_other_way_masks_and_unmasks() -> None:
    update = np.random.default_rng(1).uniform(-1, 1, 1000).astype(np.float32)
    seeds = [bytes([number]) * 31 + b"\x00" for number in range(3)]
    masked = mersenne_twister.masked(update, add=seeds[:2], subtract=seeds[2:])
    assert masked.dtype == np.int64
    assert 0 <= masked.min() <= masked.max() < mersenne_twister.MODULUS
    plain = masked - sum(mersenne_twister.mask_of(seed, 1000) for seed in seeds[:2])
    plain = (plain + mersenne_twister.mask_of(seeds[2], 1000)) % mersenne_twister.MODULUS
    step = 2 * mersenne_twister.CLIP / mersenne_twister.TARGET_RANGE
    assert np.abs(plain * step - mersenne_twister.CLIP - update).max() < 1.01 * step


def test_the_other_way_folds_its_seed() -> None:
    """Why nobody should use it: two seeds of 256 bits, one mask."""
    assert (mersenne_twister.mask_of(bytes(32), 50) == mersenne_twister.mask_of(b"\x07" * 32, 50)).all()


def test_the_client_is_measured_at_any_size() -> None:
    (figure,) = client_cost.measure(length=20_000, sites=3, repeats=3)
    assert figure.name == "client_vs_mt19937"
    assert figure.value is not None
    assert figure.value > 0
    assert "n = 3" in figure.note


def test_the_sum_is_measured_at_any_size() -> None:
    (figure,) = coordinator_sum.measure(length=200_000, uploads=2, repeats=3)
    assert figure.name == "coordinator_sum_vs_read"
    assert figure.value is not None
    assert 0 < figure.value < 20
