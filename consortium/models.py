"""Global models on disk, by their own digest (which is not that of the file: see `contract/global_model.py`)."""

from pathlib import Path

from consortium.contract.global_model import GlobalModel, ModelRefused
from consortium.contract.names import Digest
from consortium.vectors import VectorStore


class Models:
    """A folder of safetensors files. A model is read back only if it still has its digest."""

    def __init__(self, folder: Path) -> None:
        self.store = VectorStore(folder)

    def save(self, model: GlobalModel) -> Digest:
        """Keep a model; raises HomeUnwritable and then keeps nothing."""
        digest = model.digest()
        self.store.put(model.to_safetensors(), name=digest)
        return digest

    def load(self, digest: Digest) -> GlobalModel:
        """Read a model; raises VectorMissing, or ModelRefused if the file was altered."""
        model, _ = self._read(digest)
        return model

    def file(self, digest: Digest) -> bytes:
        """The file of a model, for handing out; raises as `load`."""
        _, data = self._read(digest)
        return data

    def _read(self, digest: Digest) -> tuple[GlobalModel, bytes]:
        data = self.store.path(digest).read_bytes()
        model = GlobalModel.from_safetensors(data)
        if model.digest() != digest:
            raise ModelRefused(f"the file of model {digest[:12]} holds another model")
        return model, data
