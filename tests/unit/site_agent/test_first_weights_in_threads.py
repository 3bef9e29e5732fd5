"""Studies that are made ready at once, in threads of one agent: each gets the first weights that its seed gives.

Without the lock of `networks/drawing.py` this failed five times out of five.
"""

from concurrent.futures import ThreadPoolExecutor

import torch

from site_agent.networks import build

ARGS = {"hidden": (300, 300), "activation": "relu"}


def first_weights(seed: int) -> torch.Tensor:
    module = build("mlp", ARGS, input_shape=(20,), seed=seed)
    return torch.cat([parameter.detach().ravel() for parameter in module.parameters()])


def test_what_is_drawn_at_once_is_what_is_drawn_alone() -> None:
    seeds = range(8)
    alone = [first_weights(seed) for seed in seeds]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(6):
            together = list(pool.map(first_weights, seeds))
            assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
