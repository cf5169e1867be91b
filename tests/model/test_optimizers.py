import pytest
import torch

from model.optimizers import build_optimizer, build_schedule


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("gd", {}, torch.optim.SGD),
        ("sgd", {"momentum": 0.9, "nesterov": True}, torch.optim.SGD),
        ("rmsprop", {"momentum": 0.9}, torch.optim.RMSprop),
        ("adam", {"weight_decay": 0.01}, torch.optim.AdamW),
    ],
)
def test_each_name_builds_an_optimizer_that_goes_downhill(name: str, options: dict[str, object], kind: type) -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = build_optimizer(name, [weight], learning_rate=0.05, **options)  # type: ignore[arg-type]
    assert type(optimizer) is kind
    for _ in range(50):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert weight.item() ** 2 < 5


def rates(name: str, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(name, optimizer, steps=100, **options)  # type: ignore[arg-type]
    seen = []
    for _ in range(100):
        seen.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return seen


def test_constant_stays() -> None:
    assert set(rates("constant")) == {2.0}


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_decays_from_the_highest_to_almost_nothing(name: str) -> None:
    seen = rates(name)
    assert seen[0] == 2.0
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.05
    assert seen[50] == pytest.approx(1.0)


def test_onecycle_rises_for_three_tenths() -> None:
    seen = rates("onecycle")
    assert seen[0] < 0.1
    assert max(seen) == pytest.approx(2.0)
    assert seen.index(max(seen)) == 30
    assert seen[-1] < 0.05


def test_warmup_rises_first() -> None:
    seen = rates("cosine", warmup_fraction=0.1)
    assert seen[0] < seen[5] < seen[10] == pytest.approx(2.0)
