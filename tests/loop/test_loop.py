"""The loop closed: images shift, the rule fires, the model is trained again, a canary earns the traffic, the estimate recovers.

make loop IMG=registry.example.com/chiffre GATEWAY=http://127.0.0.1:8080

The tests share a release and go on where the last one left it. What they saw is in build/loop.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch
import yaml

from model.augmentation import Augmentation
from model.bundle import Bundle, Floats, Labels, probabilities
from model.data import MnistData
from model.export import onnx_logits
from tests.drill.record import Verdict
from tests.drill.release import Release
from tests.e2e.cluster import NAMESPACE, Cluster
from tests.e2e.gateway import KnownRevisions
from tests.e2e.training import Registry, Training
from tests.load import Load, Target
from tests.loop.plot import Course, Phase, draw
from tests.loop.watch import Watch
from tests.processes import ROOT

RELEASE = "loop"
OUTPUT = ROOT / "build" / "loop"
CONFIG = ROOT / "model" / "configs" / "shifted.yaml"
# No image comes twice within the shortest window of the drift rules, as no user's would.
RATE, LEAST_RATE = 20.0, 16.0
QUIET_SECONDS = 45.0
ALARM_SECONDS, RECOVERY_SECONDS, ROLL_OUT_SECONDS = 90.0, 120.0, 600.0
# Large steps, and little time on each.
BRIEF = ("--steps", "50,100", "--step_seconds", "2")
_SHIFT_SEED = 8
_ESTIMATE = "chiffre:estimate:accuracy"
_SCORE = "max by (version) (chiffre:drift:score / on (window) group_left () chiffre:drift:threshold)"
_ANSWERED = "sum by (version) (rate(chiffre_predictions_total[15s])) / scalar(sum(rate(chiffre_predictions_total[15s])))"
_ALARM = 'ALERTS{{alertname="ChiffreInputDrift",alertstate="firing",version="{version}"}}'


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Images (n, 28, 28) that users send, their labels (n,), and what each version answers to them: probabilities (n, 10)."""

    images: Floats
    labels: Labels
    expected: dict[str, Floats] = field(default_factory=dict)

    def expect(self, version: str, bundle: Bundle) -> None:
        """From now on ``version`` may answer."""
        self.expected[version] = probabilities(onnx_logits(bundle.onnx_path, self.images), bundle.temperature)

    def accuracy(self, version: str) -> float:
        """The share of its answers that are right."""
        return float((self.expected[version].argmax(axis=1) == self.labels).mean())


@dataclass(kw_only=True)
class Loop:
    """A release with the champion, and who watches it."""

    cluster: Cluster
    registry: Registry
    release: Release
    prometheus: Watch
    champion: str
    clean: Traffic
    shifted: Traffic
    challenger: str = ""
    phases: list[Phase] = field(default_factory=list)

    def begin(self, name: str, traffic: Traffic) -> None:
        """A phase in which users send ``traffic``."""
        truth = {version: traffic.accuracy(version) for version in traffic.expected}
        self.phases.append(Phase(name=name, begun=time.time(), truth=truth))
        print(f"{time.strftime('%H:%M:%S')} {name}: " + ", ".join(f"version {v}: {t:.2%} right" for v, t in truth.items()))

    def load(self, traffic: Traffic) -> Load:
        target = Target(url=self.cluster.gateway, host=self.release.host)
        return Load(target, traffic.images, traffic.expected, rate=RATE, protocols=("v2_binary",))

    def has_alarm(self, version: str) -> bool:
        return bool(self.prometheus.query(_ALARM.format(version=version)))

    def estimate(self, version: str) -> float | None:
        """The share of right answers that the rules estimate; none while they withhold it."""
        found = self.prometheus.query(f'{_ESTIMATE}{{version="{version}"}}')
        return float(found[0]["value"][1]) if found else None

    def sampling_error(self, version: str) -> float:
        return self.prometheus.value(f'chiffre:estimate:sampling_error{{version="{version}"}}')


@pytest.fixture(scope="module")
def loop(cluster: Cluster, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    begun = time.monotonic()
    split = MnistData(str(ROOT / "data" / "mnist")).split("test")
    augmentation = Augmentation(**yaml.safe_load(CONFIG.read_text())["data"]["augmentation"])
    shifted = augmentation.apply(split.images, torch.Generator().manual_seed(_SHIFT_SEED)).numpy()
    clean = Traffic(images=split.images.numpy(), labels=split.labels.numpy())
    champion = str(registry.versions[0])
    bundle = registry.bundle(str(registry.version(int(champion)).run_id), tmp_path_factory.mktemp("champion"))
    release = Release(RELEASE, cluster, registry)
    release.remove()
    release.install(champion, monitoring={"scrape": {"kind": "ConfigMap"}, "rules": {"kind": "ConfigMap"}})
    with (
        KnownRevisions(cluster, RELEASE, NAMESPACE),
        Watch(tmp_path_factory.mktemp("prometheus"), cluster, RELEASE) as prometheus,
    ):
        made = Loop(
            cluster=cluster,
            registry=registry,
            release=release,
            prometheus=prometheus,
            champion=champion,
            clean=clean,
            shifted=replace(clean, images=shifted, expected={}),
        )
        for traffic in (made.clean, made.shifted):
            traffic.expect(champion, bundle)
        yield made
        write(made)
    release.remove()
    print(f"{time.monotonic() - begun:.0f} s in all")


def write(loop: Loop) -> None:
    """The plot and the numbers behind it."""
    begun, ended = loop.phases[0].begun, time.time()
    estimates, scores, shares = (
        loop.prometheus.lines(query, "version", begun, ended) for query in (_ESTIMATE, _SCORE, _ANSWERED)
    )
    draw(Course(phases=loop.phases, ended=ended, estimates=estimates, scores=scores, shares=shares), OUTPUT / "loop.png")
    rows = [
        f"| {phase.name} | {phase.begun - begun:.0f} s | "
        + ", ".join(f"version {version}: {truth:.2%}" for version, truth in phase.truth.items())
        + " |"
        for phase in loop.phases
    ]
    head = "| phase | begins after | answers that are right |\n|---|---:|---|\n"
    (OUTPUT / "summary.md").write_text(head + "\n".join(rows) + f"\n\n{ended - begun:.0f} s in all.\n")


def test_nothing_is_wrong_with_usual_images(loop: Loop) -> None:
    loop.begin("usual images", loop.clean)
    with loop.load(loop.clean) as sent:
        loop.prometheus.until(lambda: loop.estimate(loop.champion) is not None, "an estimate of accuracy")
        deadline = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < deadline:
            assert not loop.has_alarm(loop.champion)
            time.sleep(1)
        estimate, error = loop.estimate(loop.champion), loop.sampling_error(loop.champion)
    sent.verify(least_rate=LEAST_RATE)
    assert estimate is not None
    assert abs(estimate - loop.clean.accuracy(loop.champion)) < 0.01 + 3 * error


def test_shifted_images_raise_the_alarm_and_withhold_the_estimate(loop: Loop) -> None:
    assert loop.shifted.accuracy(loop.champion) < loop.clean.accuracy(loop.champion) - 0.05
    loop.begin("the images shift", loop.shifted)
    with loop.load(loop.shifted) as sent:
        loop.prometheus.until(partial(loop.has_alarm, loop.champion), "the drift alarm", ALARM_SECONDS)
        print(f"the alarm after {time.time() - loop.phases[-1].begun:.0f} s and {sent.sent} images")
        loop.prometheus.until(lambda: loop.estimate(loop.champion) is None, "no estimate")
    sent.verify(least_rate=LEAST_RATE)


def test_the_retrained_model_earns_the_traffic_and_the_estimate_recovers(
    loop: Loop, training: Training, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with loop.load(loop.shifted) as sent:
        loop.begin("trained again", loop.shifted)
        known = set(loop.registry.versions)
        training.complete(training.apply(**yaml.safe_load(CONFIG.read_text())))
        (number,) = set(loop.registry.versions) - known
        loop.challenger = challenger = str(number)
        run_id = str(loop.registry.version(number).run_id)
        loop.shifted.expect(challenger, loop.registry.bundle(run_id, tmp_path_factory.mktemp("challenger")))
        assert loop.shifted.accuracy(challenger) > loop.shifted.accuracy(loop.champion) + 0.05

        loop.begin("rolled out", loop.shifted)
        sent.versions = frozenset(loop.shifted.expected)
        with loop.release.rollout("start", OUTPUT, "--model-version", challenger, *BRIEF) as process:
            code = process.wait(ROLL_OUT_SECONDS)
        print(process.output)
        assert code == 0, process.output
        verdict = Verdict.read(OUTPUT)
        assert verdict.outcome == "PROMOTE"
        # Golden images are as users' were; those turned as users' are now speak for the challenger.
        assert "rotated" in (OUTPUT / "summary.md").read_text()
        loop.release.verify_alone(challenger)

        loop.begin("all users have it", loop.shifted)
        loop.prometheus.until(lambda: loop.estimate(challenger) is not None, "an estimate for it", RECOVERY_SECONDS)
        time.sleep(QUIET_SECONDS)
        estimate, error = loop.estimate(challenger), loop.sampling_error(challenger)
        assert not loop.has_alarm(challenger)
    sent.verify(least_rate=LEAST_RATE)
    assert estimate is not None
    assert abs(estimate - loop.shifted.accuracy(challenger)) < 0.02 + 3 * error
