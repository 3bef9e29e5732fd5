"""What a study's training starts from and adds to its network, besides random weights: `initial_weights`, `adapter`.

| section | what it does | a hospital needs |
|---|---|---|
| `initial_weights` | the first weights are a file's, not drawn from the seed | the file: `weights` in site.yaml |
| `adapter` | small matrices beside a transformer's layers are trained, the layers are not (LoRA) | nothing |

Hu et al., "LoRA: low-rank adaptation of large language models" (ICLR 2022). What is trained is then a small part of the
network, so that less is sent, and less noise is drawn: its length grows with the root of the number of coordinates.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator

from consortium.contract.names import is_digest
from consortium.contract.networks import Model
from consortium.contract.parameter_parts import PARTS_MAX, ParameterPattern
from consortium.contract.schema import Finding, Refused, Section, Words


def _sha256(text: str) -> str:
    if not is_digest(text):
        raise Refused
    return text


FileDigest: TypeAlias = Annotated[
    str, AfterValidator(_sha256), Words("the SHA-256 of a file: 64 characters of 0-9 and a-f")
]


class InitialWeights(Section):
    """A safetensors file that the network's first weights are read from; every hospital has a copy."""

    sha256: FileDigest
    missing: Literal["drawn"] | None = None  # whether parameters that the file lacks are drawn; else it must have all


class LoraAdapter(Section):
    """Matrices of low rank beside linear layers: a layer gives W x + (alpha / rank) B A x, and W is not trained."""

    type: Literal["lora"]
    rank: Annotated[int, Ge(1), Le(256)]  # rows of A, columns of B
    alpha: Annotated[float, Gt(0), Le(1024)]
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0  # of what goes into A
    targets: Annotated[tuple[ParameterPattern, ...], Len(1, PARTS_MAX)]  # linear layers, by name or pattern
    # Under noise the product of two noised matrices has noise times noise in it, and the mean of products is not the
    # product of means: with "b" A stays as it is drawn. Sun et al., "Improving LoRA in privacy-preserving federated
    # learning" (ICLR 2024).
    trained: Literal["both", "b"] = "both"

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of the parameters that are trained because of the adapter."""
        return ("*.lora_A.*", "*.lora_B.*") if self.trained == "both" else ("*.lora_B.*",)


WITH_TRANSFORMERS = ("vit", "swin-unetr", "unetr", "bundle-classifier", "bundle-segmenter")
"""Networks that an adapter may be put beside; of bundles those that have linear layers, which is seen when one is
built."""


def adapter_fits_network(model: Model, adapter: LoraAdapter | None) -> Iterator[Finding]:
    """A rule of studies: adapters stand beside the linear layers of transformers."""
    if adapter is not None and model.network not in WITH_TRANSFORMERS:
        allowed = f"nothing with {model.network}: adapters go with {', '.join(WITH_TRANSFORMERS)}"
        yield Finding("adapter", "an adapter", allowed)
