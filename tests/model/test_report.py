"""The quality report: its figures beside those of others, its form, its way to MLflow, and what it refuses."""

import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from matplotlib import image as pictures
from mlflow import MlflowClient

from model.__main__ import main
from model.bundle import Bundle, Floats, Labels, Registration, expected_correct, profile_statistics
from model.data import MnistData
from model.delivery import TrackingError, connect
from model.report import report
from model.report_findings import Accuracy, Calibration, Findings, measure
from model.report_page import render
from model.shifts import SHIFTS
from rollout.statistics import wilson
from tests.processes import ROOT

DATA = str(ROOT / "data" / "mnist")
# What makes a browser fetch something.
FETCHING = {"src", "srcset", "href", "action", "poster", "data", "background"}


class Page(HTMLParser):
    """What is open at the end, addresses that a browser would fetch, tables' rows by caption, pictures by what they show."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.drawn: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.addresses += [value for name, value in given.items() if name.split(":")[-1] in FETCHING]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "img":
            self.pictures[given["alt"]] = base64.b64decode(given["src"].removeprefix("data:image/png;base64,"), validate=True)
        if tag == "svg":
            assert given["role"] == "img"
            self.drawn.append(given["aria-label"])
        if tag in ("table", "tr"):
            self._rows = self._rows if tag == "tr" else []
            self._rows += [[]] if tag == "tr" else []
        if tag in ("th", "td"):
            assert tag == "td" or given["scope"] in ("row", "col")
            self._rows[-1].append("")
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "caption":
            self._caption = data
        if {"th", "td"} & set(self.open):
            self._rows[-1][-1] += data

    def rows(self, caption: str) -> dict[str, list[str]]:
        return {first: rest for first, *rest in self.tables[caption]}


@pytest.fixture(scope="module")
def test_images(mnist: MnistData) -> tuple[Floats, Labels]:
    return mnist.split("test").arrays()


@pytest.fixture(scope="module")
def findings(bundle: Bundle, test_images: tuple[Floats, Labels]) -> Findings:
    return measure(bundle, *test_images)


@pytest.fixture(scope="module")
def content(bundle: Bundle, findings: Findings, mnist: MnistData) -> str:
    return render(bundle, findings, mnist.digest)


@pytest.fixture(scope="module")
def page(content: str) -> Page:
    return Page(content)


def answers(bundle: Bundle, images: Floats) -> Floats:
    """Calibrated probabilities, in double precision and without the project's own functions."""
    session = onnxruntime.InferenceSession(bundle.onnx_path, providers=["CPUExecutionProvider"])
    scaled = session.run(None, {"images": images})[0].astype(np.float64) / bundle.temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def test_the_confusion_matrix_counts_every_test_image(bundle: Bundle, test_images: tuple[Floats, Labels], page: Page) -> None:
    images, labels = test_images
    found = answers(bundle, images).argmax(axis=1)
    rows = page.rows("Test images by label (row) and answer (column)")
    for label in range(10):
        *cells, total = rows[str(label)]
        assert int(total.replace(",", "")) == (labels == label).sum()
        for answer, cell in enumerate(cells):
            count = int(((labels == label) & (found == answer)).sum())
            digits = 1 if label == answer else 2
            share = f"{100 * count / (labels == label).sum():.{digits}f} %"
            assert cell == (f"{count:,} {share}" if count else "0"), (label, answer)


def test_accuracy_by_class_stands_with_its_interval(bundle: Bundle, test_images: tuple[Floats, Labels], page: Page) -> None:
    images, labels = test_images
    found = answers(bundle, images).argmax(axis=1)
    for label, (count, right, share, interval, _) in list(page.rows("Accuracy by class").items())[1:]:
        chosen = labels == int(label)
        wanted = wilson(int((found[chosen] == int(label)).sum()), int(chosen.sum()), alpha=0.05)
        assert int(count.replace(",", "")) == chosen.sum()
        assert int(right.replace(",", "")) == (found[chosen] == int(label)).sum()
        assert share == f"{100 * wanted.estimate:.2f} %"
        assert interval == f"{100 * wanted.low:.2f} to {100 * wanted.high:.2f} %"


def test_each_shift_stands_with_its_accuracy_and_the_expected_one(
    bundle: Bundle, test_images: tuple[Floats, Labels], page: Page
) -> None:
    images, labels = test_images
    rows = page.rows("Accuracy under each shift")
    assert list(rows) == ["shift", "none", *(shift.name for shift in SHIFTS)]
    for shift in (None, SHIFTS[1], SHIFTS[5], SHIFTS[14]):
        shown = shift.apply(images) if shift else images
        predicted = answers(bundle, shown)
        truth = (predicted.argmax(axis=1) == labels).mean()
        expected = expected_correct(bundle.profile, profile_statistics(shown, predicted)).mean()
        accuracy, _, stated, difference = rows[shift.name if shift else "none"]
        assert float(accuracy.removesuffix(" %")) == pytest.approx(100 * truth, abs=0.011)
        assert float(stated.removesuffix(" %")) == pytest.approx(100 * expected, abs=0.011)
        assert float(difference) == pytest.approx(100 * (expected - truth), abs=0.011)


def test_calibration_is_that_of_the_bundle_and_counts_every_answer(bundle: Bundle, findings: Findings, page: Page) -> None:
    assert findings.after.error == pytest.approx(bundle.metrics["test_calibration_error"], abs=1e-6)
    assert findings.clean.accuracy.share == bundle.metrics["test_accuracy"]
    for when, found in (("Before", findings.before), ("After", findings.after)):
        rows = page.rows(f"{when} the temperature: calibration error {found.error:.4f}")
        assert sum(int(row[0].replace(",", "")) for row in list(rows.values())[1:]) == 10_000
        assert sum(each.accuracy.right for each in found.bins) == findings.clean.accuracy.right


def test_bins_of_confidence_hold_what_lies_in_them() -> None:
    predicted = np.full((4, 10), 0.01, np.float32)
    predicted[:, 0] = [0.85, 0.86, 1.0, 0.1]
    found = Calibration.of(predicted, np.array([0, 1, 0, 0]))
    assert [(each.low, each.high, each.accuracy) for each in found.bins] == [
        (0.1, 0.2, Accuracy(right=1, count=1)),
        (0.8, 0.9, Accuracy(right=1, count=2)),
        (0.999, 1.0, Accuracy(right=1, count=1)),
    ]
    assert found.bins[1].confidence == pytest.approx(0.855)


def test_the_worst_mistakes_are_shown_as_they_are(bundle: Bundle, test_images: tuple[Floats, Labels], page: Page) -> None:
    images, labels = test_images
    predicted = answers(bundle, images)
    found = predicted.argmax(axis=1)
    wrong = np.flatnonzero(found != labels)
    surest = wrong[np.argsort(-predicted[wrong].max(axis=1), kind="stable")][:30]
    assert len(page.pictures) == 30
    for place, (told, picture) in zip(surest, page.pictures.items(), strict=True):
        probability = predicted[place].max()
        assert told == f"test image {place}: a {labels[place]} taken for a {found[place]} with probability {probability:.3f}"
        pixels = pictures.imread(io.BytesIO(picture))[:, :, 0]
        assert np.abs(pixels - (1 - images[place])).max() < 0.02


def test_lineage_profile_and_figures_are_the_bundles(bundle: Bundle, page: Page) -> None:
    lineage = page.rows("Where the model comes from")
    assert lineage["MLflow run"] == [bundle.lineage.run_id]
    assert lineage["git revision"] == [bundle.lineage.git_revision or "unknown"]
    assert lineage["data"] == [bundle.lineage.data_digest]
    assert lineage["data of this report"] == ["the same"]
    assert lineage["digest of bundle.json"] == [bundle.digest]
    assert {name: lineage[f"digest of {name}"] for name in bundle.files} == {name: [each] for name, each in bundle.files.items()}
    rows = page.tables["The reference profile"][1:]
    for name, histogram in bundle.profile.histograms.items():
        assert [int(count.replace(",", "")) for statistic, _, count in rows if statistic == name] == histogram.counts
    stated = list(page.rows("Figures in bundle.json").items())[1:]
    assert {name: float(value) for name, [value] in stated} == pytest.approx(bundle.metrics, rel=1e-5)


def test_the_page_fetches_nothing_and_is_whole(content: str, page: Page) -> None:
    assert page.open == []
    assert page.addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert not re.search(r"//[a-z]|@import|url\((?!#)|<script|\$\w", re.sub(r'"data:image/png;base64,[^"]*"', "", content))
    assert "@media print" in content
    assert "(prefers-color-scheme: dark)" in content
    assert len(page.drawn) == 4 + 1 + len(page.rows("The reference profile").keys() - {"statistic", "class"})
    assert content.startswith("<!doctype html>\n<html lang=")


def test_the_same_bundle_gives_the_same_page(content: str, bundle: Bundle, findings: Findings, mnist: MnistData) -> None:
    assert render(bundle, findings, mnist.digest) == content


def test_what_a_bundle_says_of_itself_is_text_and_no_markup(bundle: Bundle, findings: Findings) -> None:
    strange = replace(bundle, registration=Registration(name="<b>&$title", version='"1'))
    strange = replace(strange, metrics={**bundle.metrics, "<i>": 1.0}, lineage=replace(bundle.lineage, git_revision="<script>"))
    shown = render(strange, findings, "another")
    page = Page(shown)
    assert "<script" not in shown
    assert page.rows("Where the model comes from")["git revision"] == ["<script>"]
    assert page.rows("Where the model comes from")["data of this report"] == ["other than it was trained on: another"]
    assert re.findall(r"<h1>(.*)</h1>", shown) == ["&lt;b&gt;&amp;$title, version &quot;1"]
    assert "<i>" in page.rows("Figures in bundle.json")


def test_a_model_without_mistakes_says_so(bundle: Bundle, findings: Findings) -> None:
    right = findings.clean.accuracy.count
    clean = replace(findings.clean, accuracy=Accuracy(right=right, count=right))
    shown = render(bundle, replace(findings, confusion=np.eye(10, dtype=np.int64) * 1000, mistakes=[], clean=clean), "another")
    assert "There are none." in shown
    assert Page(shown).pictures == {}


def test_the_command_writes_beside_the_bundle_and_logs_to_its_run(
    bundle: Bundle, content: str, run_directory: Path, tracking_uri: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = report(bundle.directory, data_dir=DATA, tracking_uri=tracking_uri)
    assert path == run_directory / "report.html"
    assert path.read_text() == content
    shown = capsys.readouterr().out
    assert all(f"{shift.name}: accuracy " in shown for shift in SHIFTS)
    assert f"logged to run {bundle.lineage.run_id}" in shown
    client = MlflowClient(tracking_uri, tracking_uri)
    assert bundle.lineage.run_id
    logged = client.download_artifacts(bundle.lineage.run_id, "report.html", str(tmp_path))
    assert Path(logged).read_text() == content
    assert list(run_directory.glob(".report*")) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, findings: Findings) -> None:
    """Without measuring again."""
    monkeypatch.setattr("model.report.measure", lambda *_: findings)


@pytest.mark.usefixtures("quick")
def test_a_run_that_the_server_does_not_know_leaves_the_page(bundle: Bundle, tmp_path: Path) -> None:
    uri, path = f"sqlite:///{tmp_path}/other.db", tmp_path / "new" / "page.html"
    connect(uri).create_experiment("another")
    with pytest.raises(TrackingError, match=rf"did not take .*page.html for run {bundle.lineage.run_id} \(--track false"):
        report(bundle.directory, path, DATA, uri)
    assert path.exists()


@pytest.mark.usefixtures("quick")
def test_a_page_that_is_not_to_be_logged_asks_no_server(bundle: Bundle, tmp_path: Path) -> None:
    assert report(bundle.directory, tmp_path / "page.html", DATA, f"sqlite:///{tmp_path}/none.db", track=False).exists()
    assert not (tmp_path / "none.db").exists()


@pytest.mark.usefixtures("quick")
def test_a_model_of_no_run_is_reported_and_not_logged(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = replace(bundle, lineage=replace(bundle.lineage, run_id=None))
    own = own.save(tmp_path / "bundle", checkpoint=bundle.checkpoint_path, onnx=bundle.onnx_path)
    path = report(own.directory, data_dir=DATA, tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert path == tmp_path / "report.html"
    assert "not logged: " in capsys.readouterr().out
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "{tmp}/nothing"], "nothing: expected a bundle"),
        (["--bundle", "{tmp}"], "bundle.json: missing"),
        (["--data_dir", "{tmp}"], "SHA256SUMS: missing"),
        (["--output", "{tmp}"], "output: {tmp} cannot be written (it is a directory)"),
        (["--output", "{tmp}/file/page.html"], "output: {tmp}/file/page.html cannot be written ("),
        (["--track", "perhaps"], "track"),
        (["--format", "pdf"], "format"),
    ],
)
def test_bad_input_exits_2_in_one_sentence(
    options: list[str],
    message: str,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    given = [
        "report",
        "--bundle",
        str(bundle.directory),
        "--data_dir",
        DATA,
        "--track",
        "false",
        "--output",
        str(tmp_path / "page"),
    ]
    options = [option.format(tmp=tmp_path) for option in options]
    monkeypatch.setattr(sys, "argv", ["model", *given, *options])
    try:
        code = main()
    except SystemExit as error:
        code = int(error.code or 0)
    shown = capsys.readouterr().err
    assert code == 2, shown
    assert message.format(tmp=tmp_path) in shown
    assert "Traceback" not in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_help_lists_commands_that_are_not_lightnings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["model", "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert re.search(r"^    report +Write a page on a bundle's model: ", shown, re.MULTILINE)
    assert re.search(
        r"^    publish +Test a bundle and register it as a new version, with the alias challenger\.$", shown, re.MULTILINE
    )
