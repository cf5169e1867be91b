"""The optimizer study.

    python -m model compare --page docs/study.md                  # all of it; killed and started again, it goes on
    python -m model compare --quick true --output build/quick     # of small parts, in seconds: to see that it works

It trains each optimizer at its best learning rate from a grid, batch sizes from 1 to the whole training set, and dropout rates,
with several seeds each; times the gradient beside a Python loop; measures memory; and writes CSV, plots and a page from that.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from model.data import MnistData
from model.errors import ConfigError
from model.study import gradients, memory
from model.study.facts import facts
from model.study.findings import Findings
from model.study.gradients import Gradient
from model.study.grid import rate_at
from model.study.memory import Memory
from model.study.page import publish
from model.study.plan import Settings, Trial, quick_settings, reported_trials
from model.study.pool import Pool
from model.study.search import search, trials_of
from model.study.store import Record, Store
from model.study.tracking import log
from model.study.training import Result
from model.tracking import default_tracking_uri, git_revision

_GRADIENTS, _MEMORY = "gradients.json", "memory.json"
_GRADIENT_SIZES, _QUICK_GRADIENT_SIZES = (1, 8, 32, 128, 512), (1, 8)
_MEMORY_ROUNDS, _QUICK_MEMORY_ROUNDS = 3, 1


def compare(
    output: Path = Path("build/study"),
    page: Path | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    hidden_size: int | None = None,
    jobs: int | None = None,
    quick: bool = False,
    data_dir: str = "data/mnist",
    tracking_uri: str | None = None,
) -> None:
    """Compare optimizers, batch sizes and dropout rates, and write a page about it.

    Args:
        output: Directory of the study; one that is there is gone on with.
        page: The page to write, its plots and tables in a folder of its name beside it; OUTPUT/study.md by default.
        seeds: Runs of each kind; 5 by default.
        epochs: Of each optimizer and dropout rate; 10 by default.
        hidden_size: Width of the one hidden layer; 128 by default, a quarter of that of `fit`.
        jobs: Runs at a time, of one thread each; one for each processor by default.
        quick: Smaller in all, for seconds instead of figures.
        data_dir: Folder with the MNIST files.
        tracking_uri: Of the MLflow server; ``MLFLOW_TRACKING_URI`` or the embedded one by default.

    Raises:
        ConfigError: An argument out of range, or a directory with another study.
        DataError: The files are not MNIST's.
        TrackingError: The MLflow server did not take the runs; all else is done, and the same command sends them.
    """
    if jobs is not None and jobs < 1:
        message = f"jobs: expected 1 or more, got {jobs}"
        raise ConfigError(message)
    asked = {"seeds": seeds, "epochs": epochs, "hidden_size": hidden_size}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    settings = replace(quick_settings() if quick else Settings(), **given)
    digest, jobs = _digest(data_dir), jobs or len(os.sched_getaffinity(0))
    store = Store(output, settings, digest)
    print(f"study in {output}: {asdict(settings)}", flush=True)
    records = train_all(store, settings, data_dir, jobs)
    measure(store, settings, data_dir, quick=quick)
    options = "".join(f" --{name} {value}" for name, value in (({"quick": "true"} if quick else {}) | given).items())
    found = Findings(
        settings=settings,
        facts=facts(records, command=f"python -m model compare{options}", jobs=jobs, data_digest=digest),
        results={record.trial: record.result for record in records},
        gradients=[Gradient(**row) for row in store.read(_GRADIENTS)],
        memory=[Memory(**row) for row in store.read(_MEMORY)],
    )
    page = page or output / "study.md"
    publish(found, page)
    print(f"page in {page}", flush=True)
    log(output, tracking_uri or default_tracking_uri(), records, parameters=asdict(settings), page=page)


def _digest(data_dir: str) -> str:
    """Of the data, which are read for it: a process of the pool that finds them damaged could only end. Raises `DataError`."""
    data = MnistData(data_dir)
    data.split("train")
    return data.digest


def measure(store: Store, settings: Settings, data_dir: str, *, quick: bool) -> None:
    """What is timed and measured, while nothing else of the study runs."""
    _once(store, _GRADIENTS, lambda: _time_gradients(settings, data_dir, _QUICK_GRADIENT_SIZES if quick else _GRADIENT_SIZES))
    _once(store, _MEMORY, lambda: memory.measure(settings, data_dir, _QUICK_MEMORY_ROUNDS if quick else _MEMORY_ROUNDS))


def _time_gradients(settings: Settings, data_dir: str, sizes: tuple[int, ...]) -> list[gradients.Gradient]:
    return gradients.measure(MnistData(data_dir).split("train"), settings.hidden_size, sizes)


def _once(store: Store, name: str, take: Callable[[], Sequence[Any]]) -> None:
    if store.read(name) is None:
        started = time.monotonic()
        store.write(name, [asdict(row) for row in take()])
        print(f"{name} after {time.monotonic() - started:.1f} s", flush=True)


def train_all(store: Store, settings: Settings, data_dir: str, jobs: int) -> list[Record]:
    """Choose the rates, then train with them: the records of all runs."""
    with Pool(store, settings, data_dir=data_dir, jobs=jobs, git_revision=git_revision() or "unknown") as pool:

        def results(trials: Sequence[Trial]) -> dict[Trial, Result]:
            print(f"learning rates: {len(trials)} to try", flush=True)
            return {trial: record.result for trial, record in pool.run(trials).items()}

        searched = search(results, settings)
        rates = {kind: rate_at(grid.best) for kind, grid in searched.items()}
        for kind, rate in rates.items():
            print(f"  {kind.part}: {kind.method}, batches of {kind.batch_size:,}: learning rate {rate:g}", flush=True)
        trials = reported_trials(settings, rates)
        print(f"training: {len(trials)} runs", flush=True)
        return list(pool.run([*trials_of(settings, searched), *trials]).values())
