"""First weights from a seed: whoever draws them has torch's global generator to itself.

Two studies that are made ready at once, in two threads, would otherwise draw from one stream, and each would get other
first weights than every other hospital (torch).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TURN = threading.RLock()


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """What is drawn inside comes from `seed` and nothing else; the generator is as it was afterwards."""
    with generator_alone():
        torch.manual_seed(seed)
        yield


@contextmanager
def generator_alone() -> Iterator[None]:
    """Nobody else here sets the generator meanwhile; it is as it was afterwards."""
    with _TURN, torch.random.fork_rng(devices=[]):
        yield
