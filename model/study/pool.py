"""Trials on all cores: processes of one thread each, a record a trial, and a line now and then on how much is left."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Self

import torch

from model.study.plan import Settings, Trial
from model.study.store import Record, Store
from model.study.training import Data, train

_LINE_SECONDS = 10.0
# Of a step, and of an image in it for each unit of the hidden layer; only their ratio matters once a trial has been timed.
_STEP_SECONDS, _UNIT_SECONDS = 4e-4, 7e-8


def expected_seconds(trial: Trial, settings: Settings) -> float:
    """A first guess at what a trial takes."""
    units = trial.epochs * settings.train_images * settings.hidden_size
    return settings.steps(trial) * _STEP_SECONDS + units * _UNIT_SECONDS


@dataclass
class Progress:
    """Says what was finished last and how much is left, of trials whose times were guessed."""

    jobs: int
    settings: Settings
    _guessed: float = 0.0
    _taken: float = 0.0
    _last: str = ""
    _shown: float = field(default_factory=time.monotonic)

    def count(self, record: Record) -> None:
        """A trial is finished."""
        self._guessed += expected_seconds(record.trial, self.settings)
        self._taken += record.ended - record.started
        self._last = f"  {record.trial.key}  validation accuracy {record.result.points[-1].validation_accuracy:.4f}"

    def show(self, left: Sequence[Trial], *, total: int) -> None:
        """Say where it stands, every few seconds and at the end; ``left`` of ``total`` are not finished."""
        if left and time.monotonic() - self._shown < _LINE_SECONDS:
            return
        self._shown = time.monotonic()
        when = ""
        if self._guessed:
            seconds = sum(expected_seconds(trial, self.settings) for trial in left) * self._taken / self._guessed / self.jobs
            ends = time.strftime("%H:%M", time.localtime(time.time() + seconds))
            when = f"  about {seconds / 60:.1f} min left, until {ends}"
        print(f"  {total - len(left)}/{total}{self._last}{when}", flush=True)
        self._last = ""


_WORKER: dict[str, tuple[Settings, Data]] = {}


def _prepare(data_dir: str, settings: Settings) -> None:
    """Make a process of the pool one of a single thread, with the data, that ends with its parent."""
    # Ctrl-C is the parent's matter, which ends its pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()
    _WORKER["own"] = settings, Data.read(data_dir, settings)


def _follow_parent() -> None:
    """A parent that is killed tells its pool nothing."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _work(trial: Trial, git_revision: str) -> Record:
    settings, data = _WORKER["own"]
    started = time.time()
    result = train(trial, settings, data)
    return Record(trial=trial, result=result, started=started, ended=time.time(), git_revision=git_revision)


class Pool:
    """Runs trials; a context, whose end ends the processes too."""

    def __init__(self, store: Store, settings: Settings, *, data_dir: str, jobs: int, git_revision: str) -> None:
        self.store, self.settings, self.git_revision = store, settings, git_revision
        # Not forked: torch's threads do not survive it.
        self._executor = ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(data_dir, settings)
        )
        self._progress = Progress(jobs, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind:
            for process in multiprocessing.active_children():
                process.terminate()
        self._executor.shutdown(cancel_futures=True)

    def run(self, trials: Sequence[Trial]) -> dict[Trial, Record]:
        """The records of ``trials``, of which those that are not finished yet are run, the longest first.

        Raises `OSError` where a process of the pool was killed.
        """
        records = {trial: record for trial in trials if (record := self.store.find(trial))}
        left = sorted(set(trials) - set(records), key=lambda trial: (-expected_seconds(trial, self.settings), trial.key))
        futures: dict[Future[Record], Trial] = {self._executor.submit(_work, trial, self.git_revision): trial for trial in left}
        while futures:
            done, _ = wait(futures, timeout=_LINE_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                trial = futures.pop(future)
                try:
                    record = records[trial] = future.result()
                except BrokenProcessPool as error:
                    message = f"a process that trained was killed, perhaps for want of memory; {len(futures) + 1} trials are left"
                    raise OSError(message) from error
                self.store.add(record)
                self._progress.count(record)
            self._progress.show(list(futures.values()), total=len(left))
        return {trial: records[trial] for trial in trials}
