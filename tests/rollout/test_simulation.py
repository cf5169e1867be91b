import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollout.decision import Outcome, Policy
from rollout.planning import Pace, plan
from rollout.scenarios import Scenario, latencies, roll_out
from rollout.simulation import CURVES, NAMED, main, missed, run, simulate, summarise

TRIALS = 40


@pytest.fixture(scope="module")
def named() -> dict[str, Any]:
    return {name: summarise(endings) for name, endings in simulate(NAMED, TRIALS, seed=1).items()}


def test_the_bars_hold_as_far_as_so_few_trials_can_tell(named: dict[str, Any]) -> None:
    assert missed(named) == []


def test_faults_are_called_by_their_names(named: dict[str, Any]) -> None:
    for name, reason in {"1.5 points worse": "accuracy", "50 ms slower": "latency", "failing 2 %": "errors"}.items():
        assert named[name]["reasons"].get(reason, 0) > 0.9, name


def test_a_bar_that_does_not_hold_is_said(named: dict[str, Any]) -> None:
    swapped = {**named, "equal": named["1.5 points worse"]}
    assert [line.split(",")[0] for line in missed(swapped)] == ["equal: ROLLBACK 100.0 %", "equal: PROMOTE 0.0 %"]


def test_a_trial_ends_the_same_among_others() -> None:
    scenario = Scenario(name="equal")
    assert run(scenario, range(3, 5), seed=1) == run(scenario, range(5), seed=1)[3:]


def test_images_of_one_look_are_all_asked() -> None:
    ending = roll_out(Scenario(name="fixed", looks=(5000,)), np.random.default_rng(0))
    assert (ending.outcome, ending.images) == (Outcome.PROMOTE, 5000)


def test_simulated_latencies_are_bursty_and_alike() -> None:
    both = np.log(latencies(20_000, np.random.default_rng(0)))
    assert np.corrcoef(both)[0, 1] > 0.5
    assert np.corrcoef(both[0, :-20], both[1, 20:])[0, 1] > 0.3
    assert abs(np.median(both[0]) - np.median(both[1])) < 0.05


def test_the_plan_says_what_the_simulation_finds(named: dict[str, Any]) -> None:
    found, equal = plan(Policy()), named["equal"]
    assert found.images == pytest.approx(equal["images"], rel=0.3)
    assert found.promoted_by_look[-1] > 0.99
    # At these points, the simulation that docs/rollout.md shows promotes 94 % and rolls back 96 %.
    assert 0.25 < found.promoted_to_points < 0.35
    assert 0.9 < found.rolled_back_from_points < 1.0
    assert found.requests == equal["requests"] == 4000


def test_the_plan_follows_policy_and_pace() -> None:
    usual, strict = plan(Policy()), plan(Policy(margin_points=0.5))
    assert strict.images > usual.images
    assert plan(Policy(), Pace(step_seconds=600)).minutes == pytest.approx(usual.minutes + 36)
    assert usual.minutes < usual.most_minutes
    assert plan(Policy(error_rate=0.0001)).requests > 30_000
    assert all("points" in line or ":" in line for line in usual.lines())


def test_the_command_writes_figures_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--trials", "4", "--output", str(tmp_path)])
    assert main() == 0
    content = json.loads((tmp_path / "simulation.json").read_text())
    assert set(content["named"]) == {scenario.name for scenario in NAMED}
    assert {name: len(curve) for name, curve in content["curves"].items()} == {name: len(curve) for name, curve in CURVES.items()}
    for name in ("simulation-accuracy.png", "simulation-guards.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "| equal | " in capsys.readouterr().out


def test_too_few_trials_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--trials", "0"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "trials: expected 4 or more" in capsys.readouterr().err
