"""The fixed features of pictures: their number and length, what they see, and that each record is looked at alone."""

import pytest
import torch

from consortium.contract.networks import NETWORKS, parameters_of
from site_agent.networks import build
from site_agent.networks.scattering import LENGTH, Scattering
from site_agent.update import parameter_layout


def pictures(count: int, sides: tuple[int, int] = (28, 28), channels: int = 1) -> torch.Tensor:
    return torch.randn(count, channels, *sides, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("shape", "orientations"), [((1, 28, 28), 4), ((3, 17, 30), 2)])
def test_parameters_are_those_the_contract_tells_without_building(shape: tuple[int, ...], orientations: int) -> None:
    args = {"orientations": orientations}
    model = NETWORKS["scattering"].section.model_validate({"network": "scattering", "args": args})
    built = build("scattering", args, input_shape=shape, outputs=3, seed=1)
    assert parameter_layout(built) == parameters_of(model, shape, 3)
    assert built(pictures(2, shape[1:], shape[0])).shape == (2, 3)


def test_the_first_weights_are_zero_and_nothing_of_the_features_is_trained() -> None:
    network = build("scattering", {}, input_shape=(1, 28, 28), seed=1)
    assert [name for name, _ in network.named_parameters()] == ["1.weight", "1.bias"]
    assert not list(network.named_buffers())
    assert not any(parameter.any() for parameter in network.parameters())


def test_every_record_s_features_have_the_same_length_whatever_its_contrast() -> None:
    found = Scattering(orientations=4)(pictures(3) * torch.tensor([0.01, 1.0, 100.0]).reshape(3, 1, 1, 1))
    assert torch.allclose(found.norm(dim=1), torch.full((3,), LENGTH))


def test_a_record_s_features_do_not_depend_on_the_records_beside_it() -> None:
    features, several = Scattering(orientations=4), pictures(4)
    assert torch.allclose(features(several)[2], features(several[2:3])[0], atol=1e-5)


def test_an_even_picture_has_its_brightness_and_no_texture() -> None:
    found = Scattering(orientations=4).coefficients(torch.full((1, 1, 28, 28), 3.0))
    assert found.shape == (1, 25, 7, 7)
    assert torch.allclose(found[0, 0], torch.tensor(3.0))
    assert found[0, 1:].abs().max() < 1e-4


def test_stripes_are_seen_by_the_wave_across_them() -> None:
    across = torch.cos(0.75 * torch.pi * torch.arange(28)).expand(1, 1, 28, 28)
    fine = Scattering(orientations=4).coefficients(across)[0, 1:5, 3, 3]
    assert fine.argmax() == 0, "stripes that change from left to right are the first direction's"
    turned = Scattering(orientations=4).coefficients(across.transpose(2, 3))[0, 1:5, 3, 3]
    assert turned.argmax() == 2


def test_a_shift_of_a_point_changes_the_features_less_than_it_changes_the_picture() -> None:
    features, picture = Scattering(orientations=4), pictures(1)
    shifted = picture.roll(1, dims=3)
    moved = (features(picture) - features(shifted)).norm() / LENGTH
    assert moved < 0.5 * (picture - shifted).norm() / picture.norm()
