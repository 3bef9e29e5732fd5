"""Global models on disk: read back only if they are still what their name says."""

from pathlib import Path

import numpy as np
import pytest

from consortium.contract.global_model import ModelRefused
from consortium.contract.names import Digest
from consortium.models import Models
from consortium.vectors import VectorMissing
from tests.fakes.small_study import first_model


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    models, model = Models(tmp_path), first_model(fill=0.25)
    digest = models.save(model)
    assert digest == model.digest()
    read = models.load(digest)
    assert read.parameters == model.parameters
    assert np.array_equal(read.vector, model.vector)
    assert models.file(digest) == model.to_safetensors()


def test_saving_twice_is_one_model(tmp_path: Path) -> None:
    models = Models(tmp_path)
    assert models.save(first_model()) == models.save(first_model())
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VectorMissing):
        Models(tmp_path).load(Digest("a1" * 32))


def test_another_model_under_its_name_is_refused(tmp_path: Path) -> None:
    models = Models(tmp_path)
    digest = models.save(first_model())
    (tmp_path / digest).write_bytes(first_model(fill=1.0).to_safetensors())
    with pytest.raises(ModelRefused, match="another model"):
        models.load(digest)
    with pytest.raises(ModelRefused):
        models.file(digest)


@pytest.mark.parametrize("length", [0, 7, 40, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    models = Models(tmp_path)
    digest = models.save(first_model())
    (tmp_path / digest).write_bytes((tmp_path / digest).read_bytes()[:length])
    with pytest.raises(ModelRefused):
        models.load(digest)


def test_names_and_shapes_are_read_without_the_values(tmp_path: Path) -> None:
    models = Models(tmp_path)
    digest = models.save(first_model())
    assert models.parameters(digest) == first_model().parameters
    with pytest.raises(VectorMissing):
        models.parameters(Digest("a1" * 32))
    (tmp_path / digest).write_bytes(b"no model")
    with pytest.raises(ModelRefused):
        models.parameters(digest)
