from pathlib import Path

import pytest
import torch

from model.bundle import BundleError
from model.network import Dropout, Network, load_network


def test_default_is_the_reports_network() -> None:
    network = Network()
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [(512, 784), (512,), (10, 512), (10,)]


def test_takes_images_and_rows() -> None:
    network = Network().eval()
    images = torch.rand(3, 28, 28)
    assert torch.equal(network(images), network(images.view(3, 784)))
    assert network(images).shape == (3, 10)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "silu", "tanh"])
def test_options_build_and_learn(activation: str) -> None:
    network = Network([16, 8], dropout_rate=0.5, batch_norm=True, activation=activation)  # type: ignore[arg-type]
    network(torch.rand(4, 28, 28)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"hidden_sizes": [0]}, "hidden_sizes"), ({"dropout_rate": 1.0}, "dropout_rate"), ({"activation": "sine"}, "activation")],
)
def test_bad_argument_is_named(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Network(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    dropout = Dropout(rate)
    output = dropout(torch.ones(1001, 999))
    assert (output == 0).float().mean() == pytest.approx(rate, abs=0.003)
    assert output.mean() == pytest.approx(1.0, abs=0.01)
    # Neighbours come from the same 64 random bits; they must not be dropped together.
    dropped = (output == 0).float().flatten()
    for distance in (1, 2, 3, 4):
        assert torch.corrcoef(torch.stack([dropped[:-distance], dropped[distance:]]))[0, 1].abs() < 0.005


def test_dropout_does_nothing_in_evaluation_and_follows_the_seed() -> None:
    inputs = torch.rand(5, 7)
    assert Dropout(0.5).eval()(inputs) is inputs
    assert Dropout(0.0)(inputs) is inputs
    dropout = Dropout(0.5)
    torch.manual_seed(1)
    first = dropout(inputs)
    torch.manual_seed(1)
    assert torch.equal(dropout(inputs), first)


def test_dropout_passes_gradients_of_what_it_kept() -> None:
    inputs = torch.ones(100, requires_grad=True)
    output = Dropout(0.5)(inputs)
    output.sum().backward()
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, output.detach())


def test_load_network_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    state = {f"network.{name}": tensor for name, tensor in Network([8]).state_dict().items()}
    torch.save({"state_dict": state}, path)
    assert load_network(path, {"hidden_sizes": [8]}).training is False
    with pytest.raises(BundleError, match=r"model\.ckpt"):
        load_network(path, {"hidden_sizes": [9]})
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(BundleError, match=r"model\.ckpt"):
        load_network(path, {"hidden_sizes": [8]})
