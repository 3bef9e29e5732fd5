"""Training by a hospital's own `monai.fl.client.ClientAlgo`: global model -> an exact update (torch, MONAI).

The class takes the place of `PlainTrainer` in studies without differential privacy that ask for it, and of nothing
else. The study's network, built here as at every other hospital, decides the first model, the layout of the update and
the test figures; the class is given the global model's parameters by name and asked for its own of the same names.

| call | when | what it gets |
|---|---|---|
| `initialize(extra)` | once, when the study is prepared | MONAI's `CLIENT_NAME` and `APP_ROOT`, and the three below |
| `train(data, extra)` | in every round | the global model's parameters, `WeightType.WEIGHTS`; the round's number |
| `get_weights(extra)` | after it | the round's number; answers all parameters, as `WEIGHTS` or `WEIGHT_DIFF` |
| `abort`, `finalize` | when the study ends here, `abort` only while it trains | nothing |

`evaluate` and `get_data_stats` are not called: what they answer is free numbers that no lane bounds, and the figures of
a study are those of `evaluate.py` on the patients that this hospital set aside.

What it answers is checked like a stranger's: names, shapes, kinds of numbers, finite values. Buffers of whole numbers
and fixed tensors of the study's network are left out; a floating tensor that the network does not have, such as the
statistics of batch normalisation, refuses the update. Values beyond `update_clip` are cut where they are encoded, as
everybody's. Of an error of the class this hospital's log has type and place: its words may quote patients' data.
"""

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.fl.client.client_algo import ClientAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from numpy.typing import NDArray

from consortium.contract.global_model import is_finite
from site_agent.cohort import Records
from site_agent.device import ON_PROCESSOR, Compute
from site_agent.errors import TrainingFailed
from site_agent.exact_trainer import ExactTrainer
from site_agent.local_steps import FRESH, LocalStart, TrainedUpdate
from site_agent.networks import build_from
from site_agent.progress import StepDone, unheard
from site_agent.training_room import LocalFigures
from site_agent.training_spec import PlainSpec
from site_agent.update import parameter_layout

NETWORK, TRAINING_PART, SETTINGS = "consortium_network", "consortium_training_part", "consortium_settings"
"""What `initialize` finds in `extra` besides MONAI's own keys: a module as the study builds it, to train or to copy
names and shapes from; the `Records` that may be trained on, without those set aside; the study's `PlainSpec`."""

ROUND = "consortium_round"
"""What `train` and `get_weights` find there: the round's number, from 1."""


class ClientAlgoTrainer(ExactTrainer):
    """All rounds of one study at one site, by an object that may keep whatever it likes from round to round.

    Args:
        algo: The hospital's own object; it is initialized here.
        spec: From the study.
        train: The cohort's training part.
        site: This hospital's name.
        folder: Of the file its class is from; `ExtraItems.APP_ROOT`.
        compute: Where the test figures are computed; the object computes where it likes.

    Raises:
        NetworkRefused: The study's network cannot be built.
        TrainingFailed: The object could not be initialized.
    """

    engine_name = "client-algo"

    def __init__(
        self,
        algo: ClientAlgo,
        spec: PlainSpec,
        train: Records,
        *,
        site: str,
        folder: Path,
        compute: Compute = ON_PROCESSOR,
    ) -> None:
        self._algo = algo
        self._spec = spec
        self.compute = compute
        network = build_from(spec.network)
        self._layout = parameter_layout(network)
        self._names = frozenset(network.state_dict())
        extra = {
            ExtraItems.CLIENT_NAME: site,
            ExtraItems.APP_ROOT: str(folder),
            NETWORK: network,
            TRAINING_PART: train,
            SETTINGS: spec,
        }
        _asked(algo.initialize, "initialize", extra)

    def train_round(
        self, model: NDArray[np.float32], start: LocalStart = FRESH, step_done: StepDone = unheard
    ) -> TrainedUpdate:
        """Have the object train from a global model, and read its update.

        Args:
            model: float32[d], the global model in this network's layout.
            start: Which round it is; a study with such an object carries nothing else.
            step_done: Told at the end that all steps are done: how far the object is cannot be seen.

        Raises:
            TrainingFailed: The object failed, or what it answered is no update of the study's network.
        """
        extra = {ROUND: start.round}
        data = ExchangeObject(weights=self._weights_of(model), weight_type=WeightType.WEIGHTS)
        _asked(self._algo.train, "train", data, extra)
        update = self._update_of(_asked(self._algo.get_weights, "get_weights", extra), model)
        step_done(self._spec.local_steps)
        nobody = LocalFigures(sampled_patients=(), clipped_patients=0, broken_patients=0)
        return TrainedUpdate(update=update, events=(), local=nobody)

    def abort(self) -> None:
        """Nobody waits for the training under way any more; raises TrainingFailed."""
        _asked(self._algo.abort, "abort", {})

    def finalize(self) -> None:
        """The study is over here; raises TrainingFailed."""
        _asked(self._algo.finalize, "finalize", {})

    def _weights_of(self, model: NDArray[np.float32]) -> dict[str, torch.Tensor]:
        """The global model by name: copies, which the object may change."""
        wanted = sum(_size(shape) for _, shape in self._layout)
        if model.shape != (wanted,):
            raise TrainingFailed(f"the global model has {model.size} values; this network has {wanted}")
        weights, first = {}, 0
        for name, shape in self._layout:
            last = first + _size(shape)
            weights[name] = torch.from_numpy(model[first:last].astype(np.float32)).reshape(shape)
            first = last
        return weights

    def _update_of(self, answer: Any, model: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[d]: the answer as a difference from the global model; raises TrainingFailed."""
        if not isinstance(answer, ExchangeObject) or not isinstance(answer.weights, Mapping):
            raise TrainingFailed(f"get_weights answered {type(answer).__name__}, not an ExchangeObject with weights")
        if answer.weight_type not in (WeightType.WEIGHTS, WeightType.WEIGHT_DIFF):
            raise TrainingFailed("get_weights answered no weight_type; it is WeightType.WEIGHTS or WEIGHT_DIFF")
        foreign = sum(_is_floating(value) for name, value in answer.weights.items() if name not in self._names)
        if foreign:
            raise TrainingFailed(
                f"get_weights answered {foreign} floating tensors that the study's network does not have: other "
                "layers, or statistics of batch normalisation, which the study's network replaces by group norm"
            )
        update, first = np.empty(model.shape, dtype=np.float32), 0
        for name, shape in self._layout:
            last = first + _size(shape)
            with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes no number, and is refused
                update[first:last] = _numbers(name, answer.weights.get(name), shape)
                if answer.weight_type == WeightType.WEIGHTS:
                    update[first:last] -= model[first:last]
            first = last
        if not is_finite(update):
            raise TrainingFailed("get_weights answered a value that is not finite")
        return update


def _numbers(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One parameter's values in a row; `name` and `shape` are the study's, which everybody may read."""
    if value is None:
        raise TrainingFailed(f"get_weights answered no {name}, which is a parameter of the study's network")
    if not _is_floating(value):
        raise TrainingFailed(f"get_weights answered {name} as {type(value).__name__}, not as a tensor of real numbers")
    if tuple(value.shape) != shape:
        raise TrainingFailed(f"get_weights answered {name} of shape {tuple(value.shape)}; the study's has {shape}")
    row: NDArray[np.float32] = torch.as_tensor(value).detach().to(device="cpu", dtype=torch.float32).numpy().ravel()
    return row


def _is_floating(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.is_floating_point()
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _asked(call: Callable[..., Any], name: str, *arguments: Any) -> Any:
    """What the object answers. Its errors become ours without their words, whatever they are."""
    try:
        return call(*arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        raise TrainingFailed(f"the client algorithm failed in {name} ({type(error).__name__} at {where})") from None
