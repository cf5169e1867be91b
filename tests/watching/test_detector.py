"""The alarm in numpy, beside scipy's tests and beside what promtool finds that the chart's rules say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml

from tests.rules.groups import groups, promtool, write
from watching.detector import SCRAPE_SECONDS, chi_square, increases, inflation, scores
from watching.kolmogorov import LOOKS, distances
from watching.rules import read_rules

RULES = read_rules()
RELEASE = 'namespace="chiffre",inferenceservice="digits"'


def test_chi_square_is_that_of_a_contingency_table() -> None:
    generator = np.random.default_rng(0)
    counts, reference = generator.multinomial([300, 5000], [0.1, 0.2, 0.3, 0.4]).astype(np.float64)
    expected = scipy.stats.chi2_contingency([counts, reference], correction=False)
    assert chi_square(counts[:, None], reference)[0] == pytest.approx(expected.statistic / expected.dof)


def test_a_bin_that_nobody_fell_in_and_a_window_without_images_say_nothing() -> None:
    found = chi_square(np.array([[5.0, 0.0], [5.0, 0.0], [0.0, 0.0]]), np.array([500.0, 500.0, 0.0]))
    assert found == pytest.approx([0, 0])


def test_distances_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    # Ties too, within a sample and between both.
    values, reference = generator.integers(50, size=200) / 50, np.sort(generator.integers(60, size=300) / 50)
    window = 40
    found = distances(values, reference, window) / np.sqrt(window * 300 / (window + 300))
    starts = range(0, 200 - window + 1, window // LOOKS)
    expected = [scipy.stats.ks_2samp(values[start : start + window], reference).statistic for start in starts]
    assert found == pytest.approx(expected)


def test_an_increase_is_extrapolated_to_the_window() -> None:
    counts = np.ones((1, 20))
    assert increases(counts, 120, 30) == pytest.approx(np.full((1, 7), 8.0))
    counts[0, :11] = 0
    # 8 samples in 2 minutes span 7 scrapes.
    assert increases(counts, 120, 30)[0, :4] == pytest.approx([0, 0, 8 / 7, 3 * 8 / 7])


def test_images_of_few_writers_are_expected_to_differ_more() -> None:
    assert inflation(np.array([5000.0]), 5000, 3.0) == pytest.approx([2.0])
    assert inflation(np.array([1.0, 1e9]), 5000, 3.0) == pytest.approx([3.0, 1.0], rel=1e-3)


def test_promtool_finds_what_numpy_finds(tmp_path: Path) -> None:
    """Two pods, one of which is restarted, count a walk of images; the rules' scores are numpy's of the two together."""
    generator, scrapes = np.random.default_rng(3), 300
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    added = generator.multinomial(12, shares, size=(2, scrapes))
    reference = generator.multinomial(5000, shares)
    series = [
        {"series": f'chiffre_reference_images{{{RELEASE},pod="a",{bin_of(place)}}}', "values": f"{images}+0x{scrapes}"}
        for place, images in enumerate(reference.tolist())
    ]
    for pod, counts in zip("ab", added, strict=True):
        for place, steps in enumerate(counts.T):
            total = steps.cumsum()
            if pod == "b":
                # What was counted before the restart was scraped; then it begins at 0.
                total[150:] -= total[149]
            values = " ".join(map(str, [0, *total.tolist()]))
            series.append({"series": f'chiffre_profile_images_total{{{RELEASE},pod="{pod}",{bin_of(place)}}}', "values": values})
    minutes = 60
    counts = added.sum(axis=0).astype(np.float64)[: minutes * 60 // SCRAPE_SECONDS]
    cases = [case(window, seconds, minutes, counts, reference) for window, seconds in RULES.windows.items() if seconds < 5000]
    found = {"drift": groups()["drift"]}
    content = {
        "rule_files": write(found, tmp_path),
        "evaluation_interval": "30s",
        "tests": [{"interval": f"{SCRAPE_SECONDS}s", "input_series": series, "promql_expr_test": cases}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(content))
    code, output = promtool("test", "rules", "test.yaml", directory=tmp_path)
    assert code == 0, output


def bin_of(place: int) -> str:
    return f'version="1",statistic="confidence",bin="{place}"'


def case(window: str, seconds: int, minutes: int, counts: Any, reference: Any) -> dict[str, Any]:
    """Samples lie at the window's ends here, so that nothing is extrapolated: all scrapes of the window count."""
    inside = counts[len(counts) - seconds // SCRAPE_SECONDS :].sum(axis=0)
    images = inside.sum()
    corrected = chi_square(inside[:, None], reference.astype(np.float64)) / inflation(
        np.array([images]), 5000, RULES.design_effects["confidence"]
    )
    expected = float(corrected[0])
    assert expected > 0.01
    # promtool compares exactly.
    expression = f'abs(chiffre:drift:score{{window="{window}"}} / {expected!r} - 1) < bool 1e-9'
    labels = f'{{{RELEASE},version="1",statistic="confidence",window="{window}"}}'
    return {"expr": expression, "eval_time": f"{minutes}m", "exp_samples": [{"labels": labels, "value": 1}]}


def test_too_few_images_have_no_score() -> None:
    counts = np.zeros((2, 40))
    counts[0] = 3.0
    reference = np.array([500.0, 500.0])
    for least, is_said in ((97, False), (95, True)):
        found = scores(counts, reference, design_effect=1.0, window_seconds=480, interval_seconds=30, least_images=least)
        assert ((found > 10) == is_said).all()
