"""The simulation, shorter than docs/watching.md shows it, with the tests' small model."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import Bundle
from model.shifts import SHIFTS
from watching import estimates, plots, report
from watching.alarm import draw, draw_references, watch
from watching.populations import populate
from watching.rules import read_rules
from watching.simulation import main, reference_thresholds, run_month, run_shift
from watching.traffic import Population, Traffic

DAY = report.DAY_SECONDS
RULES = read_rules()


@pytest.fixture(scope="module")
def population(bundle: Bundle) -> Population:
    return populate(bundle)


def test_its_images_are_those_that_the_bundles_model_was_not_trained_on(bundle: Bundle, population: Population) -> None:
    other = populate(replace(bundle, lineage=replace(bundle.lineage, split_seed=7)))
    assert other.size == population.size
    assert (other.values["mean_ink"] != population.values["mean_ink"]).mean() > 0.9


def test_writers_send_images_alike_and_all_images_as_often(population: Population) -> None:
    generator = np.random.default_rng(0)
    images, counted = population.draw(Traffic(session=4), 60_000, generator)
    assert len(images) == len(counted) == pytest.approx(900_000, rel=0.01)
    classes = population.values["class"][images]
    assert (classes[1:] == classes[:-1]).mean() > 0.7
    single, _ = population.draw(Traffic(), 60_000, generator)
    singles = population.values["class"][single]
    assert (singles[1:] == singles[:-1]).mean() < 0.15
    often = np.bincount(images, minlength=population.size) / (len(images) / population.size)
    assert often.mean() == pytest.approx(1)
    assert often.std() < 0.5


def test_a_score_is_one_where_nothing_changed_however_many_images_there_are(population: Population) -> None:
    for rate, session in ((1.0, 3.0), (0.1, 3.0), (1.0, 1.0)):
        found = []
        for seed in range(6):
            generator = np.random.default_rng(seed)
            references = draw_references(population, generator)
            drawn = draw(Traffic(rate=rate, session=session), [(population, DAY)], generator)
            # A window that never has images enough says nothing.
            found += [scores[scores > 0].mean() for scores in watch(drawn, RULES, references).values() if scores.any()]
        assert np.mean(found) < 1.25, (rate, session)
        if session == 3:
            assert np.mean(found) > 0.75, (rate, session)


def test_a_week_of_writers_raises_no_alarm(bundle: Bundle, population: Population) -> None:
    del population
    months = [run_month(bundle.directory, "writers of 3", trial, 1, seconds=7 * DAY) for trial in range(4)]
    assert sum(month["alarm"] for month in months) <= 1
    assert run_month(bundle.directory, "writers of 3", 2, 1, seconds=7 * DAY) == months[2]


@pytest.mark.parametrize("shift", report.SOON)
@pytest.mark.parametrize("traffic", ["independent", "writers of 3"])
def test_what_must_be_found_is_found_soon(shift: str, traffic: str, bundle: Bundle) -> None:
    runs = [run_shift(bundle.directory, traffic, trial, 1, shift=shift, thresholds={}, seconds=1800) for trial in range(4)]
    assert [run["requests"] for run in runs if run["requests"] is None or run["requests"] > 600] == []


def test_run_lengths_have_an_interval() -> None:
    quiet = report.run_length([{"alarm": False, "months": 1.0, "statistic": ""}] * 100)
    assert (quiet["alarms"], quiet["estimate"], quiet["high"]) == (0, None, None)
    # The rule of three, of a two-sided interval.
    assert quiet["low"] == pytest.approx(100 / 3.69, rel=0.01)
    loud = report.run_length([{"alarm": True, "months": 0.1, "statistic": "class"}] * 100)
    assert loud["estimate"] == pytest.approx(0.1)
    assert loud["low"] < 0.1 < loud["high"] < 0.13
    assert loud["statistics"] == {"class": 100}


def test_the_reference_is_tuned_to_alarm_as_often() -> None:
    generator = np.random.default_rng(0)
    maxima = [{"a": float(generator.gumbel(5, 0.4)), "b": float(generator.gumbel(3, 0.2))} for _ in range(2000)]
    thresholds = reference_thresholds(maxima)
    alarms = np.mean([any(month[test] > bound for test, bound in thresholds.items()) for month in maxima])
    assert alarms == pytest.approx(1 / 6, abs=0.03)


def test_the_estimate_has_all_shifts_and_images_of_the_reference_have_a_good_one(bundle: Bundle) -> None:
    found = estimates.compare(bundle)
    assert set(found["shifts"]) == {"none", *(shift.name for shift in SHIFTS)}
    usual = found["shifts"]["none"]
    assert usual["estimate"] == pytest.approx(usual["truth"], abs=0.02)
    assert found["shifts"]["polarity 1"]["estimate"] == pytest.approx(0.1, abs=0.01)
    assert 0 < usual["sampling_error"] < 0.01


def content(*, alarms: int = 0, soon: float = 1.0, error: float = 0.1) -> dict[str, Any]:
    months = [{"alarm": place < alarms, "months": 0.5, "statistic": "class"} for place in range(100)]
    runs = [{"requests": 100 if place < 20 * soon else None, "statistic": "confidence", "reference": 200} for place in range(20)]
    row = {"truth": 0.9, "estimate": 0.8, "sampling_error": 0.001, "plain": 0.85}
    return {
        "run_length": {name: report.run_length(months) for name in ("independent", "writers of 3", "writers of 5")},
        "delays": {f"{name}|{shift}": report.delays(runs) for name in ("independent", "writers of 3") for shift in report.SOON},
        "estimates": {
            "constant": 0.98,
            "shifts": {"none": row, "blur 2 px": row},
            "mean_absolute_error": {"estimate": error, "plain": 0.15, "constant": 0.3},
        },
    }


def test_bars_that_do_not_hold_are_said() -> None:
    assert report.missed(content()) == []
    assert [line.split(":")[0] for line in report.missed(content(alarms=100))] == ["independent", "writers of 3"]
    assert len(report.missed(content(soon=0.5))) == 4
    assert report.missed(content(error=0.2)) == ["estimate: mean absolute error 0.200, expected at most half of 0.300"]


def test_tables_and_plots(tmp_path: Path) -> None:
    lines = report.tables(content(alarms=10))
    assert "| independent | 100 | 10 | 5.0 (2.7 to 10.4) |" in lines
    assert "| rotation 20° | 100 (100) | 100 (100) | confidence | 200 |" in lines
    plots.draw(content(), tmp_path)
    for name in ("watching-estimate.png", "watching-delays.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_command_asks_for_enough_and_writes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--months", "0"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "months: expected 4 or more" in capsys.readouterr().err
    monkeypatch.setattr("watching.simulation.find", lambda *_: content(error=0.2))
    monkeypatch.setattr(sys, "argv", ["simulation", "--output", str(tmp_path)])
    assert main() == 1
    assert json.loads((tmp_path / "simulation.json").read_text())["estimates"]["constant"] == 0.98
    assert "estimate: mean absolute error 0.200" in capsys.readouterr().out
