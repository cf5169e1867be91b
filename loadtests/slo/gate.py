"""A run from its first question to its exit code: what Locust's events do."""

import logging
import time
from collections import Counter
from typing import Any

import gevent
from locust.env import Environment
from locust.exception import StopTest
from locust.html import get_html_report
from locust.runners import MasterRunner

from loadtests.slo.findings import OpenCheck, Run, measure
from loadtests.slo.objectives import Objectives, judge
from loadtests.slo.openloop import OpenLoop
from loadtests.slo.report import write
from loadtests.slo.settings import SettingsError, check_host, check_users
from loadtests.slo.shapes import Stages
from loadtests.slo.stages import Span, Stage
from loadtests.slo.tally import Tally
from loadtests.slo.users import Course, GrpcUser
from loadtests.slo.witness import watch

_STOP_SECONDS = 30
# Of the best rate, the open loop's.
_OPEN_SHARE = 0.5
_WATCH_SECONDS = 0.2

logger = logging.getLogger(__name__)


class Gate:
    """A load test, as the process sees it that judges it: the only one, or the master of workers."""

    def __init__(
        self, environment: Environment, course: Course, objectives: Objectives, *, shape: Stages | None, tally: Tally
    ) -> None:
        self._environment, self._course, self._objectives, self._shape = environment, course, objectives, shape
        self._runner: Any = environment.runner
        self._options: Any = environment.parsed_options
        self._users: Any = environment.user_classes
        self._tally = tally
        self._first_answer: float | None = None
        self._is_running, self._stopped, self._started = False, "", time.time()

    @property
    def is_headless(self) -> bool:
        """Whether Locust runs without its page."""
        return bool(self._options.headless)

    def ask_first(self) -> str:
        """Why the service cannot be loaded, after a question of each kind; empty where it can."""
        if self._course.settings.shape == "zero":
            return ""
        environment, tally, begun = Environment(host=self._environment.host), Tally(), time.perf_counter()
        watch(environment, tally)
        for kind in self._users:
            user = kind(environment)
            user.ask()
            user.on_stop()
            if tally.examples:
                self._tally.examples.update(tally.examples)
                target = self._course.settings.grpc_host if kind is GrpcUser else self._environment.host
                return f"{target}: no right answer: {next(iter(tally.examples))}; a server has to be up there first"
            self._first_answer = self._first_answer or time.perf_counter() - begun
        return ""

    def begin(self, **_: Any) -> None:
        """At the start of a run. Raises `StopTest` where the web page names a host that may not be asked, or too many users."""
        try:
            self._check_form(self._options.num_users)
        except SettingsError as error:
            raise StopTest(str(error)) from error
        self._tally.clear()
        self._is_running, self._stopped, self._started = True, "", time.time()
        gevent.spawn(self._watch)

    def _check_form(self, users: int) -> None:
        check_users(users)
        check_host(self._environment.host or "", allow_remote=self._course.settings.allow_remote)

    def _watch(self) -> None:
        """End a run that has sent enough, needs no more requests to be judged, or was changed to what may not be."""
        refusal = ""
        while self._is_running and not (refusal or self._tally.wrong or self._has_sent_enough()):
            time.sleep(_WATCH_SECONDS)
            try:
                # The page can change a run that is on.
                self._check_form(self._runner.target_user_count)
            except SettingsError as error:
                refusal = str(error)
        if self._is_running:
            self._stopped = "an answer was wrong" if self._tally.wrong else refusal
            (self._runner.quit if self.is_headless else self._runner.stop)()

    def _has_sent_enough(self) -> bool:
        return self._tally.requests >= self._course.settings.most_requests

    def quit(self, **_: Any) -> None:
        """At the end of the process, which a signal may have brought while a run is on."""
        if self._is_running:
            self._runner.stop()

    def finish(self, **_: Any) -> None:
        """At the end of a run: the open loop, the reports, the exit code."""
        if not self._is_running:
            return
        self._gather()
        seconds = time.time() - self._started
        self._is_running = False
        if self.is_headless and not self._stopped and not self._is_complete(seconds):
            self._stopped = f"it was stopped after {seconds:.0f} s"
        spans = self._spans(seconds)
        # A service that gives wrong answers is asked no more.
        checked = None if self._stopped else self._check_open_loop(spans)
        self.conclude(spans, checked)

    def _is_complete(self, seconds: float) -> bool:
        if self._has_sent_enough():
            return True
        return self._shape.has_ended if self._shape else seconds >= self._options.run_time - 2

    def _gather(self) -> None:
        """Wait for what workers have seen; they send it when they stop."""
        if not isinstance(self._runner, MasterRunner):
            return
        self._runner.send_message("stop")
        deadline = time.monotonic() + self._course.timeout_seconds + _STOP_SECONDS
        while self._runner.user_count and time.monotonic() < deadline:
            time.sleep(0.1)

    def _spans(self, seconds: float) -> tuple[Span, ...]:
        if self._shape:
            return tuple(self._shape.spans)
        stage = Stage(name="steady", users=self._options.num_users, seconds=seconds)
        return (Span(stage=stage, begin=self._started, end=self._started + seconds),)

    def _check_open_loop(self, spans: tuple[Span, ...]) -> OpenCheck | None:
        settings = self._course.settings
        rate = settings.open_rate or _OPEN_SHARE * max((span.rate(self._tally) for span in spans), default=0.0)
        if not settings.open_seconds:
            return None
        logger.info("open loop: %.0f requests/s for %d s", rate, settings.open_seconds)
        loop = OpenLoop(
            host=self._environment.host or "",
            users=self._users,
            rate=rate,
            seconds=settings.open_seconds,
            timeout_seconds=self._course.timeout_seconds,
        )
        return loop.run()

    def _exceptions(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for row in self._runner.exceptions.values():
            found[row["msg"]] += row["count"]
        return found

    def conclude(self, spans: tuple[Span, ...], checked: OpenCheck | None, *, failure: str = "") -> None:
        """Write the reports, say what they say, and set the exit code."""
        settings = self._course.settings
        run = Run(
            target=self._environment.host or settings.grpc_host,
            model_name=settings.model_name,
            shape=settings.shape,
            kinds=tuple(user.kind for user in self._users),
            tally=self._tally,
            spans=spans,
            open_check=checked,
            first_answer_seconds=self._first_answer,
            stopped=self._stopped or failure,
            exceptions=self._exceptions(),
            is_saturated=bool(self._runner.cpu_warning_emitted or self._runner.worker_cpu_warning_emitted),
        )
        rows = judge(measure(run, self._objectives), self._objectives)
        self._environment.process_exit_code = int(not all(row.held for row in rows))
        print(write(run, rows, self._objectives, settings.output, get_html_report(self._environment, show_download_link=False)))
