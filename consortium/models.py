"""Global models on disk, by their own digest (which is not that of the file: see `contract/global_model.py`)."""

from pathlib import Path

from consortium.contract.global_model import GlobalModel, ModelRefused, ParameterLayout, parameters_in, state_in
from consortium.contract.names import Digest
from consortium.objects import ObjectAltered, Objects
from consortium.vectors import VectorStore


class Models:
    """A folder of safetensors files, and an object store behind it. A model is read only if it still has its digest."""

    def __init__(self, folder: Path, shared: Objects | None = None) -> None:
        self.store = VectorStore(folder, shared, _is_model)

    def save(self, model: GlobalModel) -> Digest:
        """Keep a model; raises HomeUnwritable and then keeps nothing."""
        digest = model.digest()
        self.store.put(*model.file_parts(), name=digest)
        return digest

    def load(self, digest: Digest) -> GlobalModel:
        """Read a model, whose values stay on disk; raises VectorMissing, or ModelRefused if the file was altered."""
        model = GlobalModel.open(self.store.path(digest))
        if model.digest() != digest:
            raise ModelRefused(f"the file of model {digest[:12]} holds another model")
        return model

    def parameters(self, digest: Digest) -> ParameterLayout:
        """Names and shapes alone, without reading the values; raises as `load`, but for values that were altered."""
        return parameters_in(self.store.path(digest))

    def state(self, digest: Digest) -> ParameterLayout:
        """Names and shapes of what the model carries besides; raises as `parameters`."""
        return state_in(self.store.path(digest))

    def file(self, digest: Digest) -> bytes:
        """The file of a model, for handing out; raises as `load`."""
        return self.load(digest).to_safetensors()


def _is_model(digest: Digest, path: Path) -> None:
    """Raises ObjectAltered unless the file holds the model of that digest."""
    try:
        found = GlobalModel.open(path).digest()
    except ModelRefused as error:
        raise ObjectAltered(f"the object store returned no model for {digest[:12]}: {error}") from error
    if found != digest:
        raise ObjectAltered(f"the object store returned another model for {digest[:12]} ({found[:12]})")
