"""Weights of a bundle as plain tensors; nothing is unpickled to get them.

| file | how it is read |
|---|---|
| `.safetensors` | by our own reader: float32 tensors one after the other, and a header of text |
| `.pt` | its pickle is looked at as a list of instructions, which must be those of a state dict; only then it is |
| | given to `torch.load` with `weights_only=True` |

Torch's restricted reader has had holes of its own (CVE-2025-32434, CVE-2026-24747), so it is not asked first.
"""

import io
import math
import pickletools
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import torch

from consortium.contract.errors import shown
from consortium.contract.global_model import GlobalModel, ModelRefused
from site_agent.bundles.reading import WEIGHTS_BYTES_MAX
from site_agent.bundles.refusals import BundleRefused, Finding

TENSORS_MAX = 10_000
_PICKLE_BYTES_MAX = 16 * 2**20
_ADVICE = "Save the state dict alone, torch.save(network.state_dict(), ...), or as safetensors."
_SECTIONS = ("model", "state_dict", "net", "network")

_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Byte", "Bool")),
    }
)
_OPCODES = frozenset(
    {
        *("PROTO", "STOP", "MARK", "POP", "POP_MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"),
        *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "NONE"),
        *("NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
        *("SHORT_BINUNICODE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MEMOIZE", "FRAME"),
        *("GLOBAL", "REDUCE", "BINPERSID", "BUILD"),
    }
)
"""What a state dict is written with. STACK_GLOBAL, INST, OBJ and the like, with which a pickle hides what it names, are
not among them: what REDUCE calls and BUILD fills can only be one of _GLOBALS."""


def read_state(name: str, content: bytes) -> Mapping[str, torch.Tensor]:
    """The tensors of a file of weights, by name.

    Raises:
        BundleRefused: It is damaged, holds something other than tensors, or asks to call something.
    """
    if name.lower().endswith(".safetensors"):
        try:
            model = GlobalModel.from_safetensors(content)
        except ModelRefused as error:
            raise _refused(name, str(error), "a safetensors file of float32 tensors") from None
        sizes = [math.prod(shape) for _, shape in model.parameters]
        parts = torch.split(torch.from_numpy(model.vector.copy()), sizes)
        return {key: part.reshape(shape) for (key, shape), part in zip(model.parameters, parts, strict=True)}
    _require_plain_pickle(name, content)
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, TypeError, KeyError, EOFError, OSError, AttributeError) as error:
        found = f"a file torch does not read as weights ({type(error).__name__})"
        raise _refused(name, found, "a state dict") from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise _refused(name, "a file torch does not read as weights (UnpicklingError)", "a state dict") from None
    return _tensors(name, loaded)


def misfits(name: str, state: Mapping[str, torch.Tensor], network: torch.nn.Module) -> list[Finding]:
    """Why weights are not those of a network: names and shapes must be the same, and every value finite."""
    wanted = {key: tuple(value.shape) for key, value in network.named_parameters(remove_duplicate=False)}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if missing := sorted(wanted.keys() - found.keys()):
        return [_finding(name, f"no {shown(missing[0])} ({len(missing)} missing)", "every parameter of the network")]
    extra = sorted(found.keys() - wanted.keys() - dict(network.named_buffers()).keys())
    if extra:
        return [_finding(name, f"{shown(extra[0])} ({len(extra)} more than the network has)", "its parameters alone")]
    for key, shape in wanted.items():
        if found[key] != shape:
            return [_finding(name, f"{shown(key)} of shape {found[key]}", f"shape {shape}")]
        if not torch.isfinite(state[key]).all():
            return [_finding(name, f"a value of {shown(key)} that is not finite", "finite values")]
    return []


def _require_plain_pickle(name: str, content: bytes) -> None:
    """Refuse a `.pt` file whose pickle does anything but name tensors. Nothing is run for this."""
    for opcode, argument in _instructions(name, content):
        if opcode not in _OPCODES:
            raise _refused(name, f"a pickle with the instruction {opcode}", "the instructions of a state dict")
        if opcode == "GLOBAL" and argument not in _GLOBALS:
            raise _refused(name, f"a pickle that asks for {shown(argument)}", "tensors and their storage")


def _instructions(name: str, content: bytes) -> Iterator[tuple[str, object]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > WEIGHTS_BYTES_MAX:
                raise _refused(name, "a file that unfolds to more than it may", f"{WEIGHTS_BYTES_MAX} bytes")
            pickles = [info for info in archive.infolist() if info.filename.endswith(".pkl")]
            if len(pickles) != 1 or pickles[0].file_size > _PICKLE_BYTES_MAX:
                raise _refused(name, f"{len(pickles)} pickles, or a large one", "the one of a state dict")
            raw = archive.read(pickles[0])
        for opcode, argument, _ in pickletools.genops(raw):
            yield opcode.name, argument
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        found = f"a file that is not torch's ({type(error).__name__})"
        raise _refused(name, found, "a file written by torch.save since version 1.6") from None


def _tensors(name: str, loaded: object) -> Mapping[str, torch.Tensor]:
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in _SECTIONS if isinstance(loaded.get(key), dict)), loaded)
    if not isinstance(loaded, dict) or not loaded or len(loaded) > TENSORS_MAX:
        raise _refused(name, "something other than a state dict", f"1 to {TENSORS_MAX} tensors with their names")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise _refused(name, f"an entry that is no tensor ({type(value).__name__})", "tensors with their names")
    return loaded


def _finding(name: str, found: str, allowed: str) -> Finding:
    return Finding(file=name, found=found, allowed=allowed, advice=_ADVICE)


def _refused(name: str, found: str, allowed: str) -> BundleRefused:
    return BundleRefused([_finding(name, found, allowed)])
