"""Our predictor beside its peers, measured in one run with the same client.

    python loadtests/peers/run.py                              # everything, about 20 minutes
    python loadtests/peers/run.py --only ours,echo,kserve --rounds 1 --seconds 2
    python loadtests/peers/run.py --setup-only                 # makes the peers' environments

Each round starts every contestant in turn, loads it, checks its answers and ends it; then come the cold starts. Servers and
client share the same cores (`--cpus`): a core of its own for the client would leave one to two workers, and none of them could
show what a second worker is worth. results.json and results.md go to `--out`.

Exit code 0: all bars hold; 1: one is missed; 2: it cannot run, and says why.
"""

import argparse
import json
import os
import platform
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.peers import h2load
from loadtests.peers.answers import Truth
from loadtests.peers.contestants import CONTESTANTS, Contestant
from loadtests.peers.h2load import LoadError
from loadtests.peers.measure import Bench, Settings
from loadtests.peers.processes import StartError
from loadtests.peers.report import BARS, DUEL, Figures, judge, markdown
from loadtests.peers.venvs import SetupError, prepare, versions
from loadtests.peers.weights import UnknownGraphError, write_weights
from loadtests.peers.wire import AnswerError
from model.bundle import Bundle, BundleError
from model.data import MnistData
from serving.engine import Engine

EXIT_CANNOT_RUN = 2
_IMAGES = 256
# The peers whose start with one worker is compared too.
_ONE_WORKER = ("ours", "kserve")
Notes = dict[str, dict[str, str]]


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure our predictor beside its peers.")
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="The bundle's directory.")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="Contestants, by comma: %(default)s.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds of load.")
    parser.add_argument("--starts", type=int, default=5, help="Cold starts of each.")
    parser.add_argument("--seconds", type=int, default=5, help="Seconds of each measurement, after one of warm-up.")
    parser.add_argument("--cpus", default="0-1", help="Cores for the servers and the client together.")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="Where the peers' environments are.")
    parser.add_argument("--out", type=Path, default=Path("build/peers/results"), help="Where the results go.")
    parser.add_argument("--setup-only", action="store_true", help="Make the environments, and nothing else.")
    return parser.parse_args(words)


def cores(text: str) -> set[int]:
    """The cores of a list such as ``0-1,4``. Raises `ValueError`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def real_images(bundle: Bundle) -> Truth:
    """Test images whose pixels have 4 decimals, and the engine's answers to them."""
    images = np.round(MnistData().split("test").arrays()[0][:_IMAGES], 4).astype(np.float32)
    probabilities = Engine(bundle).predict(images)
    return Truth(images=images.reshape(len(images), -1), probabilities=probabilities)


def measure(bench: Bench, contestants: list[Contestant], *, rounds: int, starts: int) -> tuple[Figures, Notes, list[float]]:
    """All figures, one value a round, the reasons of those that are missing, and the machine's load before each round.

    A column with a note in any round has no figure.
    """
    loads = []
    figures: Figures = {contestant.name: {} for contestant in contestants}
    notes: Notes = {contestant.name: dict(contestant.notes) for contestant in contestants}
    for index in range(rounds):
        loads.append(os.getloadavg()[0])
        print(f"round {index + 1}/{rounds}", file=sys.stderr, flush=True)
        for contestant in contestants:
            values, reasons = bench.round(contestant)
            notes[contestant.name] |= reasons
            for column, value in values.items():
                figures[contestant.name].setdefault(column, []).append(value)
        _duels(bench, contestants, figures, notes)
    for index in range(starts):
        print(f"cold starts {index + 1}/{starts}", file=sys.stderr, flush=True)
        for contestant in contestants:
            _start(bench, contestant, figures[contestant.name], notes[contestant.name])
    for name, reasons in notes.items():
        for column in reasons:
            figures[name].pop(column, None)
    return figures, notes, loads


def _duels(bench: Bench, contestants: list[Contestant], figures: Figures, notes: Notes) -> None:
    """Ours beside each peer that a close bar names."""
    for name in (bar.peer for bar in BARS if bar.is_duel):
        if name in figures and "ours" in figures:
            ours, peer = (next(found for found in contestants if found.name == one) for one in ("ours", name))
            try:
                figures[name].setdefault(DUEL, []).extend(bench.duel(ours, peer))
            except (AnswerError, LoadError, StartError) as error:
                notes[name][DUEL] = str(error)


def _start(bench: Bench, contestant: Contestant, figures: dict[str, list[float]], notes: dict[str, str]) -> None:
    runs = {"start": bench.settings.workers} | ({"start_1": 1} if contestant.name in _ONE_WORKER else {})
    for column, workers in runs.items():
        try:
            figures.setdefault(column, []).append(bench.cold_start(contestant, workers=workers))
        except StartError as error:
            notes[column] = str(error)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"cpu": found[1] if found else platform.machine(), "cores": len(os.sched_getaffinity(0)), "kernel": platform.release()}


def report(
    arguments: argparse.Namespace, contestants: list[Contestant], figures: Figures, notes: Notes, loads: list[float]
) -> None:
    """Write results.json and results.md."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "settings": {"rounds": arguments.rounds, "starts": arguments.starts, "seconds a measurement": arguments.seconds},
        "titles": {contestant.name: contestant.title for contestant in contestants},
        "load_averages": loads,
        "figures": figures,
        "notes": notes,
        "bars": [{"bar": verdict.line(), "held": verdict.held, "values": verdict.values} for verdict in judge(figures)],
        "versions": {contestant.name: versions(contestant, arguments.peers) for contestant in contestants},
    }
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = markdown(results)
    (arguments.out / "results.md").write_text(text)
    print(text)


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises what `main` explains."""
    contestants = [CONTESTANTS[name] for name in arguments.only.split(",")]
    for contestant in contestants:
        prepare(contestant, arguments.peers)
    if arguments.setup_only:
        return 0
    # What we start inherits it.
    os.sched_setaffinity(0, cores(arguments.cpus))
    bundle = Bundle.load(arguments.bundle)
    write_weights(bundle, arguments.peers / "weights.npz")
    settings = Settings(bundle=arguments.bundle, root=arguments.peers, seconds=arguments.seconds)
    bench = Bench(settings=settings, truth=real_images(bundle))
    figures, notes, loads = measure(bench, contestants, rounds=arguments.rounds, starts=arguments.starts)
    report(arguments, contestants, figures, notes, loads)
    return 0 if all(verdict.held for verdict in judge(figures)) else 1


def main() -> int:
    """Run, and say what is missing where it cannot."""
    arguments = parse()
    # Servers are ended on the way out, whichever signal asks for it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    unknown = set(arguments.only.split(",")) - set(CONTESTANTS)
    problem = f"--only: expected some of {', '.join(CONTESTANTS)}, got {', '.join(sorted(unknown))}" if unknown else ""
    if not h2load.available() and not arguments.setup_only:
        problem = h2load.INSTALL
    if not problem:
        try:
            return run(arguments)
        except (BundleError, SetupError, UnknownGraphError, OSError, ValueError) as error:
            problem = str(error)
        except KeyboardInterrupt:
            problem = "stopped; what was started has ended"
    print(f"error: {problem}", file=sys.stderr)
    return EXIT_CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
