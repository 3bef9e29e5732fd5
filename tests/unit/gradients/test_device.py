"""Which device is taken, that nothing is made on another one unasked, and what happens when its memory is full.

No GPU is needed here; `test_on_a_gpu.py` has what needs one.
"""

import ast
import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from site_agent import device
from site_agent.device import Compute, DeviceMissing, compute_for
from site_agent.errors import TrainingFailed
from site_agent.evaluate import score_patients
from site_agent.gradients.admission import ENGINES, choose
from site_agent.gradients.ddp import dealt, weights_of
from site_agent.gradients.loop import LoopEngine
from site_agent.gradients.losses import record_loss
from site_agent.gradients.workload import Workload
from site_agent.local_steps import LocalStart
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.trainer import DpTrainer
from site_agent.training_spec import OptimizerSpec, PlainSpec
from site_agent.update import vector_of
from tests.fakes.odd_networks import made
from tests.fakes.training import entropy_of, patients, spec

LOSS = record_loss(nn.BCEWithLogitsLoss())
META = torch.device("meta")  # has shapes and no values: whatever meets a tensor that has some is an error


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # as at a hospital; two threads on a busy machine take many times as long


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many GPUs, as torch would tell."""

    def has(gpus, *, bfloat16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
        about = SimpleNamespace(name="H200", total_memory=141 * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)

    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = True
    yield has
    for kind, allowed in zip(kinds, before, strict=True):
        kind.allow_tf32 = allowed


def test_the_device_that_site_yaml_asks_for(machine, monkeypatch):
    machine(0)
    assert compute_for("auto", "float32") == compute_for("cpu", "float32") == Compute()
    assert compute_for("cpu", "bfloat16").words == "cpu, bfloat16"
    machine(2)
    assert compute_for("cpu", "float32").device.type == "cpu"
    assert torch.backends.cudnn.allow_tf32  # what is not used is left alone
    assert compute_for("auto", "float32").words == "cuda:0 (H200, 141 GiB), float32"
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
    assert compute_for("cuda:1", "bfloat16").device == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert compute_for("cuda", "float32").device == torch.device("cuda", 1)


def test_a_device_that_is_not_there_is_refused_with_advice(machine, monkeypatch):
    machine(0)
    for wanted in ("cuda", "cuda:0"):
        with pytest.raises(DeviceMissing, match="no CUDA device") as caught:
            compute_for(wanted, "float32")
        assert "device: auto" in caught.value.advice()
    machine(2, bfloat16=False)
    with pytest.raises(DeviceMissing, match=r"'cuda:2', but this machine has 2, numbered from 0"):
        compute_for("cuda:2", "float32")
    with pytest.raises(DeviceMissing, match=r"cuda:0 \(H200, 141 GiB\) has no bfloat16"):
        compute_for("auto", "bfloat16")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DeviceMissing, match="several processes") as caught:
        compute_for("cuda:1", "float32")
    assert "device: cuda" in caught.value.advice()


@pytest.mark.parametrize(
    ("network", "engine"),
    [("cnn", engine) for engine in sorted(ENGINES)]
    + [(network, engine) for network in ("convolutions 2d", "logistic", "tied", "words")
       for engine in ("bookkeeping", "loop", "vmap")],
)  # fmt: skip
def test_an_engine_makes_every_tensor_on_the_networks_device(network, engine):
    module, shape = made(network)
    several = (1, 3, 1) if ENGINES[engine].several_records else (1, 1, 1)
    batch = Workload(input_shape=shape, patients=3, records_each=1, memory_bytes=1).batch(several)
    tried = ENGINES[engine](module, LOSS)
    expected = tried.clipped_sum(batch, 0.5).total
    with META:
        assert np.array_equal(tried.clipped_sum(batch, 0.5).total, expected)


def test_so_do_training_evaluation_and_the_choice_of_an_engine():
    training = spec(network="mlp", args={"hidden": (4,), "activation": "relu"}, momentum=0.5)
    records = patients(8, records_each=2)
    model = vector_of(build_from(training.network))
    start = LocalStart(shift=np.zeros_like(model))
    plain = PlainSpec(
        network=training.network, optimizer=OptimizerSpec(learning_rate=0.1, proximal_mu=0.1), local_steps=2,
        batch_part=0.5, max_records_per_patient=2, declared_patients=8,
    )  # fmt: skip
    trainers = DpTrainer(training, records, entropy=entropy_of("meta")), PlainTrainer(plain, records)
    module = build_from(training.network)
    work = Workload(input_shape=training.network.input_shape, patients=3, records_each=2, memory_bytes=2**30)
    with META:
        for trainer in trainers:
            assert np.isfinite(trainer.train_round(model, start).update).all()
        assert np.isfinite(score_patients(module, model, records)[0]).all()
        assert choose(module, LOSS, work, pinned="bookkeeping").choice.name == "bookkeeping"
        assert weights_of(module).device.type == "cpu"
        assert [len(share.sizes) for share in dealt(work.batch((1, 2, 1)), 2)] == [2, 1]


MAKERS = {"arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "tensor", "zeros"}
AGENT = Path(device.__file__).parent
COMPUTES = [
    *(
        path for path in sorted((AGENT / "gradients").glob("*.py")) if path.name != "ddp.py"
    ),  # which is for the processor
    *(
        AGENT / f"{name}.py"
        for name in ("trainer", "plain_trainer", "local_steps", "corrections", "evaluate", "overlays")
    ),
]


def test_whoever_makes_a_tensor_names_its_device():
    # What runs inside a backward pass does not see torch's default device, so the tests above do not see it either.
    makers = [
        (path.name, node.lineno, {keyword.arg for keyword in node.keywords})
        for path in COMPUTES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS
        and isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
    ]  # fmt: skip
    assert len(makers) > 15
    assert [(name, line) for name, line, keywords in makers if "device" not in keywords] == []


class Small(LoopEngine):
    """As if on a device that holds three records."""

    def add(self, part, clip_norm_l2, tally):
        super().add(part, clip_norm_l2, tally)  # so that something has been added when it breaks off
        if len(part.features) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    room = 3


def test_a_full_device_makes_parts_smaller_and_the_sum_is_the_same():
    module, shape = made("mlp")
    batch = Workload(input_shape=shape, patients=3, records_each=2, memory_bytes=1).batch((2, 1, 2, 2, 1, 1, 2))
    expected = LoopEngine(copy.deepcopy(module), LOSS).clipped_sum(batch, 0.5)
    tried = Small(module, LOSS)
    found = tried.clipped_sum(batch, 0.5)
    assert tried.records_max == 2  # of 11: 5, then 2
    assert (found.patients, found.clipped) == (7, expected.clipped)
    assert found.total == pytest.approx(expected.total, rel=1e-12)


def test_where_parts_cannot_be_smaller_one_line_says_what_to_do():
    module, shape = made("mlp")
    batch = Workload(input_shape=shape, patients=3, records_each=2, memory_bytes=1).batch((2, 1))
    full = Small(module, LOSS)
    full.room = 0
    with pytest.raises(TrainingFailed, match=r"cpu has not enough memory for the engine loop; .*device: cpu") as caught:
        full.clipped_sum(batch, 0.5)
    assert caught.value.__context__ is None  # no traceback of the library hangs on it
    kept = Small(module, LOSS)
    kept.begins_anew = False  # as Opacus' hooks, which a broken pass leaves in an unknown state
    kept.room = 2
    with pytest.raises(TrainingFailed, match="not enough memory"):
        kept.clipped_sum(batch, 0.5)
    assert [name for name, kind in ENGINES.items() if not kind.begins_anew] == ["hooks", "ghost"]


def test_plain_training_says_so_too(monkeypatch):
    training = spec()
    plain = PlainSpec(
        network=training.network, optimizer=OptimizerSpec(learning_rate=0.1), local_steps=1, batch_part=1.0,
        max_records_per_patient=1, declared_patients=8,
    )  # fmt: skip
    trainer = PlainTrainer(plain, patients(4))

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "_add_gradients", full)
    with pytest.raises(TrainingFailed, match="cpu has not enough memory"):
        trainer.train_round(vector_of(build_from(training.network)))
