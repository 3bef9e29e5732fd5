"""The state of a hospital's own optimizer as one vector, so that it can be carried from round to round (torch).

`training.optimizer_state: carried`. SGD has its velocity, Adam both moments and the number of steps that its bias
correction needs. It lies in the agent's home and never leaves it.

Under local DP-SGD the optimizer is given gradients that are clipped and carry their noise (`trainer.PatientOptimizer`
adds it before the wrapped optimizer's step, and FedProx's term after it), so its state is a function of private values
and published models: post-processing, which costs nothing, and so does every step that is taken with it. Without
differential privacy it is as exact as the update, and stays where the patients are.

Randomness is not carried, on purpose. Noise, samples and the order of batches come from generators whose keys are drawn
from the operating system and never written down: a state that was saved could be used twice, and one noise under two
different sums would be subtracted away. A hospital that restarts draws anew, and its steps are as private as before.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from consortium.contract.global_model import ParameterLayout, is_finite
from consortium.contract.names import Digest
from site_agent.errors import TrainingFailed
from site_agent.training_spec import OptimizerSpec

_SEAL = "seal"
_SEAL_VALUES = hashlib.sha256().digest_size  # one byte of the hash in each
_STEPS = "steps"


def _parts(spec: OptimizerSpec) -> tuple[tuple[str, str], ...]:
    """Each part's name here, and the name torch has for it."""
    if spec.betas is None:
        return (("velocity", "momentum_buffer"),)
    return (("first", "exp_avg"), ("second", "exp_avg_sq"))


def state_layout(parameters: ParameterLayout, spec: OptimizerSpec) -> ParameterLayout:
    """Names and shapes of a carried state, sorted by name: its file's layout.

    Args:
        parameters: All that are trained, in any order.
        spec: The optimizer.
    """
    layout = [(f"{part}/{name}", shape) for part, _ in _parts(spec) for name, shape in parameters]
    if spec.betas is not None:
        layout.append((_STEPS, (1,)))
    return tuple(sorted([*layout, (_SEAL, (_SEAL_VALUES,))]))


def read_state(
    optimizer: torch.optim.Optimizer, named: Sequence[tuple[str, nn.Parameter]], spec: OptimizerSpec
) -> NDArray[np.float32]:
    """The state after a round, float32, without the seal; raises TrainingFailed if it holds no number."""
    values: dict[str, NDArray[np.float32]] = {}
    steps = 0.0
    for name, parameter in named:
        state = optimizer.state.get(parameter, {})  # none of a parameter that no step moved
        for part, key in _parts(spec):
            held = state.get(key, torch.zeros_like(parameter))
            values[f"{part}/{name}"] = held.detach().cpu().numpy().astype(np.float32, copy=False).ravel()
        if spec.betas is not None:
            steps = max(steps, float(state.get("step", 0.0)))
            values[_STEPS] = np.array([steps], dtype=np.float32)
    vector = np.concatenate([values[name] for name in sorted(values)])
    if not is_finite(vector):
        raise TrainingFailed("training left the finite numbers; the study's learning rate is too large")
    return vector


def load_state(
    optimizer: torch.optim.Optimizer,
    named: Sequence[tuple[str, nn.Parameter]],
    spec: OptimizerSpec,
    vector: NDArray[np.float32] | None,
) -> None:
    """Set the state that a round starts with; None is that of a new optimizer.

    Raises:
        TrainingFailed: The state is of another optimizer or network.
    """
    optimizer.state.clear()
    if vector is None:
        return
    shapes = tuple((name, tuple(p.shape)) for name, p in named)
    layout = [entry for entry in state_layout(shapes, spec) if entry[0] != _SEAL]
    if vector.size != sum(int(np.prod(shape, dtype=np.int64)) for _, shape in layout):
        raise TrainingFailed("the carried state of the optimizer does not fit the network")
    values = dict(_cut(vector, layout))
    for name, parameter in named:
        state = {
            key: torch.tensor(values[f"{part}/{name}"], dtype=parameter.dtype, device=parameter.device)
            for part, key in _parts(spec)
        }
        if spec.betas is not None:
            state["step"] = torch.tensor(float(values[_STEPS][0]))
        optimizer.state[parameter] = state


def _cut(
    vector: NDArray[np.float32], layout: Sequence[tuple[str, tuple[int, ...]]]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    start = 0
    for name, shape in layout:
        stop = start + int(np.prod(shape, dtype=np.int64))
        yield name, vector[start:stop].reshape(shape)
        start = stop


def sealed(
    vector: NDArray[np.float32], study_digest: Digest, round_number: int, layout: ParameterLayout
) -> NDArray[np.float32]:
    """A state as it is written: with the SHA-256 of study, round and values, a byte in each number of the seal."""
    at, whole = _place_of_seal(layout), np.empty(vector.size + _SEAL_VALUES, dtype=np.float32)
    whole[:at], whole[at + _SEAL_VALUES :] = vector[:at], vector[at:]
    whole[at : at + _SEAL_VALUES] = np.frombuffer(_seal_of(vector, study_digest, round_number), dtype=np.uint8)
    return whole


def opened(
    whole: NDArray[np.float32], study_digest: Digest, round_number: int, layout: ParameterLayout
) -> NDArray[np.float32] | None:
    """The state that was sealed for this study and round; None if it is another's, or a value has changed."""
    at = _place_of_seal(layout)
    vector = np.concatenate([whole[:at], whole[at + _SEAL_VALUES :]])
    expected = np.frombuffer(_seal_of(vector, study_digest, round_number), dtype=np.uint8)
    return vector if np.array_equal(whole[at : at + _SEAL_VALUES], expected) else None


def _place_of_seal(layout: ParameterLayout) -> int:
    """How many numbers stand before the seal."""
    count = 0
    for name, shape in layout:
        if name == _SEAL:
            return count
        count += int(np.prod(shape, dtype=np.int64))
    raise TrainingFailed("a carried state without a seal")


def _seal_of(vector: NDArray[np.float32], study_digest: Digest, round_number: int) -> bytes:
    hasher = hashlib.sha256(f"consortium/optimizer-state/v1\n{study_digest}\n{round_number}\n".encode())
    hasher.update(np.ascontiguousarray(vector, dtype="<f4").data)
    return hasher.digest()
