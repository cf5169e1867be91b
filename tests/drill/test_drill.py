"""The drill: challengers with every fault, and without one, want the release's traffic while users send theirs.

make drill IMG=registry.example.com/chiffre GATEWAY=http://127.0.0.1:8080
make drill FULL=1                      # with the roll-out's own steps, and the best challenger

The tests share a release and go on where the last one left it. What they saw is in build/drill/summary.md.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from model.bundle import Floats, probabilities
from model.export import onnx_logits
from tests.drill.challengers import POINTS, POINTS_TOLERANCE, Models, Name
from tests.drill.conftest import IS_FULL
from tests.drill.record import Row, Verdict, table
from tests.drill.release import Release
from tests.e2e.cluster import NAMESPACE
from tests.e2e.conftest import Images
from tests.e2e.gateway import KnownRevisions
from tests.load import REST, Load, Target
from tests.processes import ROOT, Process

OUTPUT = ROOT / "build" / "drill"
RATE, LEAST_RATE = 120.0, 100.0
# The gateway hears of a new split of the traffic a moment later than the API server.
SETTLE_SECONDS = 3.0
ROLL_OUT_SECONDS = 900.0

# The default steps take ten minutes, and 50 ms show in fewer than 2,000 answers.
BRIEF: dict[Name, tuple[str, ...]] = {
    "slow": ("--latency_requests", "500"),
    "equal": ("--steps", "50,100", "--step_seconds", "2"),
    "better": ("--steps", "25,100", "--step_seconds", "2"),
}

# The reason codes of the fault that was put in.
FAULTS: dict[Name, set[str]] = {
    "worse": {"accuracy"},
    "points": {"accuracy"},
    "slow": {"latency"},
    "crashing": {"errors"},
    "unready": {"not_ready"},
}
GOOD = {"not_inferior", "worse_within_margin"}


@dataclass(kw_only=True)
class Drill:
    """A release with its users; ``champion`` is the name of the model that has all traffic between the tests."""

    release: Release
    models: Models
    versions: dict[str, str]
    load: Load
    champion: str = "champion"
    rows: list[Row] = field(default_factory=list)

    def roll_out(self, name: Name, *, code: int, kill_at: int | None = None) -> Verdict:
        """Begin a roll-out and see it end with ``code``; one that is killed at a share of the traffic is begun again."""
        output, sent, failed, begun = OUTPUT / name, self.load.sent, len(self.load.failures), datetime.now(UTC)
        self.load.phase = name
        output.mkdir(exist_ok=True)
        if kill_at is not None:
            with self._start(name) as process:
                self.release.await_share(self.versions[name], kill_at, process)
                process.popen.kill()
                assert process.wait() < 0
        with self._start(name) as process:
            ended = process.wait(ROLL_OUT_SECONDS)
            (output / "output.txt").write_text(process.output)
        print(process.output)
        assert ended == code, process.output
        self.rows.append(
            Row(
                name=name,
                accuracy=self.models.golden_accuracy.get(name),
                verdict=Verdict.read(output),
                begun=begun,
                ended=datetime.now(UTC),
                requests=self.load.sent - sent,
                failed=len(self.load.failures) - failed,
            )
        )
        assert len(self.load.failures) == failed, self.load
        return self.rows[-1].verdict

    def _start(self, name: Name) -> Process:
        options = () if IS_FULL else BRIEF.get(name, ())
        return self.release.rollout("start", OUTPUT / name, "--model-version", self.versions[name], *options)

    def expect_only(self, *names: str) -> None:
        """From now on users' answers come from these models."""
        self.load.versions = frozenset(self.versions[name] for name in names)


@pytest.fixture(scope="module")
def expected(models: Models, versions: dict[str, str], images: Images) -> dict[str, Floats]:
    """What each version that users may meet answers to their images: probabilities (n, 10)."""
    bundles = {"champion": models.champion, "equal": models.challengers["equal"], "better": models.challengers["better"]}
    return {
        versions[name]: probabilities(onnx_logits(bundle.onnx_path, images[0]), bundle.temperature)
        for name, bundle in bundles.items()
    }


@pytest.fixture(scope="module")
def drill(
    release: Release, models: Models, versions: dict[str, str], images: Images, expected: dict[str, Floats]
) -> Iterator[Drill]:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    begun = time.monotonic()
    target = Target(url=release.cluster.gateway, host=release.host)
    known = KnownRevisions(release.cluster, release.name, NAMESPACE)
    with known, Load(target, images[0], expected, rate=RATE, protocols=REST) as load:
        made = Drill(release=release, models=models, versions=versions, load=load)
        made.expect_only("champion")
        yield made
    champion = f"The first champion has {models.golden_accuracy['champion']:.2%} of the golden images right.\n"
    text = f"{table(made.rows)}\n{champion}Users: {load}\n{time.monotonic() - begun:.0f} s in all.\n"
    (OUTPUT / "summary.md").write_text(text)
    print(f"\n{text}")
    load.verify(least_rate=LEAST_RATE)


def test_the_challengers_are_as_much_better_and_worse_as_they_are_said_to_be(models: Models) -> None:
    points = {name: 100 * (value - models.golden_accuracy["champion"]) for name, value in models.golden_accuracy.items()}
    assert points["better"] > 0.5
    assert abs(points["equal"]) < 0.5
    assert abs(points["points"] + POINTS) <= POINTS_TOLERANCE
    assert points["worse"] < -50


@pytest.mark.parametrize("name", list(FAULTS))
def test_one_with_a_fault_is_rolled_back_for_it_and_no_user_meets_it(name: Name, drill: Drill) -> None:
    drill.expect_only("champion")
    # One is killed while it gathers evidence.
    verdict = drill.roll_out(name, code=1, kill_at=0 if name == "points" else None)
    assert (verdict.outcome, verdict.percent) == ("ROLLBACK", 0)
    assert verdict.reason in FAULTS[name]
    drill.release.verify_alone(drill.versions["champion"])


@pytest.mark.parametrize(("name", "kill_at"), [("equal", None), ("better", 25)])
def test_one_that_is_as_good_or_better_is_promoted(name: Name, kill_at: int | None, drill: Drill) -> None:
    drill.expect_only(drill.champion, name)
    verdict = drill.roll_out(name, code=0, kill_at=kill_at)
    assert verdict.outcome == "PROMOTE"
    assert verdict.reason in GOOD
    drill.release.verify_alone(drill.versions[name])
    drill.release.verify_record(drill.versions[name], OUTPUT / name)
    drill.champion = name
    time.sleep(SETTLE_SECONDS)
    drill.expect_only(name)
    assert drill.load.answered_by[drill.versions[name]] > 0


def test_the_champion_rolls_against_itself(drill: Drill) -> None:
    drill.load.phase = "aa"
    output, failed = OUTPUT / "aa", len(drill.load.failures)
    with drill.release.rollout("aa", output, "--rounds", "3" if IS_FULL else "1") as process:
        code = process.wait(ROLL_OUT_SECONDS)
    print(process.output)
    assert code == 0, process.output
    assert len(json.loads((output / "alarms.json").read_text())["verdicts"]) == (3 if IS_FULL else 1)
    assert len(drill.load.failures) == failed, drill.load
    drill.release.verify_alone(drill.versions[drill.champion])
