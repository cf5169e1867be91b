"""Phases of a cold start from logs and moments, and its bars."""

import pytest

from loadtests.cold.moments import PHASES, Moments, lines, start
from loadtests.cold.report import judge, markdown

BEGUN = "2026-11-23T10:00:01.500000000Z begun\n"
UVICORN = (
    "2026-11-23T10:00:03.123456789Z 2026-11-23 10:00:03.1 12 uvicorn.error INFO [startup():62] Application startup complete.\n"
)
OURS = '2026-11-23T10:00:02Z {"message": "serving"}\n2026-11-23T10:00:02.5Z {"message": "ready", "seconds": 0.4}\n'


def moments(**changes: float | None) -> Moments:
    usual = {"asked": 1.0, "scheduled": 1.2, "fetched": 2.0, "begun": 2.5, "listening": 3.0, "ready": 3.2, "answered": 3.3}
    return Moments(**{**usual, **changes})  # type: ignore[arg-type]  # None goes to the one that takes it


def test_a_server_says_when_it_began_and_when_it_listened() -> None:
    assert [round(found % 60, 6) for found in start(lines(BEGUN + UVICORN))] == [1.5, 3.123457]
    assert [round(found % 60, 6) for found in start(lines(BEGUN))] == [1.5, 1.5]
    assert [round(found % 60, 6) for found in start(lines(OURS))] == [2.1, 2.5]
    with pytest.raises(ValueError, match="expected a line `begun`"):
        start(lines("2026-11-23T10:00:02Z {not JSON\n"))


def test_phases_add_up_to_the_whole() -> None:
    phases = moments().phases
    assert list(phases) == list(PHASES)
    assert [round(phase, 6) for phase in phases.values()] == [0.2, 0.8, 0.5, 0.5, 0.2, 0.1]
    assert moments(fetched=None).phases["initializer"] == 0
    # The activator found it ready before the API server told.
    early = moments(ready=4.0).phases
    assert early["answer"] == 0
    assert sum(early.values()) == pytest.approx(2.3)


def test_bars_are_held_by_the_median_of_ratios_and_missed_without_figures() -> None:
    def rounds(*seconds: float) -> list[dict[str, float]]:
        return [dict.fromkeys(PHASES, second / 6) for second in seconds]

    figures = {"chiffre-mlflow": rounds(2, 2, 9), "stock-mlflow": rounds(4, 4, 6), "chiffre-pvc": rounds(2, 3, 3)}
    first, second = judge({**figures, "floor": rounds(1, 1, 1)})
    assert first.held
    assert "held: chiffre-mlflow: at most 0.65 of stock-mlflow's time, 0.50 (0.50 to 1.50)" in first.line
    assert not second.held
    assert "MISSED" in second.line
    assert [verdict.held for verdict in judge(figures)] == [True, False]
    assert "| chiffre-pvc | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | 3.00 | 2.00, 3.00 |" in markdown(figures)
