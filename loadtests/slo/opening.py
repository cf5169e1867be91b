"""From the command line to a load test that Locust's events drive."""

import logging
import sys
from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.slo.answers import Answers
from loadtests.slo.gate import Gate
from loadtests.slo.objectives import Objectives, ObjectivesError, read_values, release_values
from loadtests.slo.questions import Questions
from loadtests.slo.settings import DEFAULTS, STEADY_SECONDS, Settings, SettingsError, check_host
from loadtests.slo.shapes import Stages
from loadtests.slo.stages import Span, find_knee, plan
from loadtests.slo.tally import Tally
from loadtests.slo.users import Course, GrpcUser, prepare
from loadtests.slo.witness import watch
from model.idx import DataError

# Of what workers tell.
_MESSAGE = "digits"

logger = logging.getLogger(__name__)


def set_up(environment: Environment, **_: Any) -> None:
    """When Locust has read its flags: users, shape and listeners. Ends the process with 2 where that cannot be, or with 1."""
    options: Any = environment.parsed_options
    try:
        settings = Settings.read(options)
        values = release_values(settings.release, settings.namespace) if settings.release else read_values(settings.values)
        objectives = Objectives.of_values(values, network_ms=settings.network_ms)
        _choose_users(environment, settings)
        course = _make_course(environment, settings, objectives)
    except (SettingsError, ObjectivesError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    prepare(course, environment.host or "")
    if isinstance(environment.runner, WorkerRunner):
        _work(environment)
    else:
        _judge(environment, course, objectives)


def _choose_users(environment: Environment, settings: Settings) -> None:
    """Those of gRPC need an address of their own; whoever is asked has to be near."""
    options: Any = environment.parsed_options
    if not settings.grpc_host:
        if "GrpcUser" in (options.user_classes or []):
            message = "--grpc-host: expected the address that GrpcUser asks"
            raise SettingsError(message)
        environment.user_classes[:] = [user for user in environment.user_classes if user is not GrpcUser]
    else:
        check_host(settings.grpc_host, allow_remote=settings.allow_remote)
    if any(user is not GrpcUser for user in environment.user_classes):
        check_host(environment.host or "", allow_remote=settings.allow_remote)


def _make_course(environment: Environment, settings: Settings, objectives: Objectives) -> Course:
    """What users share, with what is given where a flag was not."""
    options: Any = environment.parsed_options
    users, pause = DEFAULTS[settings.shape]
    options.num_users = options.num_users or users
    options.spawn_rate = options.spawn_rate or min(100, options.num_users)
    if settings.shape == "steady":
        options.run_time = options.run_time or STEADY_SECONDS
    is_cold = settings.shape == "zero"
    timeout = max(settings.timeout_seconds, 4 * objectives.cold_start_seconds if is_cold else 0)
    # Requests that are on their way at the end are waited for.
    environment.stop_timeout = timeout
    questions = Questions(settings.data_dir, settings.model_name)
    return Course(
        settings=settings,
        questions=questions,
        answers=Answers(questions.labels, model_version=settings.model_version),
        pause_seconds=pause if settings.pause_seconds is None else settings.pause_seconds,
        timeout_seconds=timeout,
    )


def _work(environment: Environment) -> None:
    """A worker counts, and tells the master every few seconds and at the end."""
    tally, runner = Tally(), environment.runner
    assert runner
    watch(environment, tally)

    def report(data: dict[str, Any], **_: Any) -> None:
        data[_MESSAGE] = tally.to_json()
        tally.clear()

    def finish(**_: Any) -> None:
        data: dict[str, Any] = {}
        report(data)
        runner.send_message(_MESSAGE, data[_MESSAGE])
        # All users have ended; otherwise Locust would wait that long once more, and the process outlive the master's.
        environment.stop_timeout = 0

    events.report_to_master.add_listener(report)
    events.test_stop.add_listener(finish)


def _judge(environment: Environment, course: Course, objectives: Objectives) -> None:
    """The process that judges: it asks before users do, and ends where nobody can answer them."""
    tally = Tally()
    shape = _make_shape(environment, course, objectives, tally)
    gate = Gate(environment, course, objectives, shape=shape, tally=tally)
    watch(environment, tally)
    if reason := gate.ask_first():
        if gate.is_headless:
            gate.conclude((), None, failure=reason)
            print(f"error: {reason}", file=sys.stderr)
            sys.exit(1)
        logger.warning("%s", reason)
    events.test_start.add_listener(gate.begin)
    events.test_stop.add_listener(gate.finish)
    events.quitting.add_listener(gate.quit)
    events.worker_report.add_listener(lambda data, **_: tally.merge(Tally.from_json(data[_MESSAGE])))
    assert environment.runner
    environment.runner.register_message(_MESSAGE, lambda msg, **_: tally.merge(Tally.from_json(msg.data)))


def _make_shape(environment: Environment, course: Course, objectives: Objectives, tally: Tally) -> Stages | None:
    options: Any = environment.parsed_options
    settings = course.settings
    stages = plan(
        settings.shape,
        options.num_users,
        step_seconds=settings.step_seconds,
        cold_seconds=objectives.cold_start_seconds,
        least=len(environment.user_classes),
    )
    if not stages:
        return None

    def is_over(spans: list[Span]) -> bool:
        # Workers tell of a stage's last seconds in the next one.
        known = spans[:-1] if isinstance(environment.runner, MasterRunner) else spans
        return settings.shape == "knee" and find_knee(known, tally, objectives)[1]

    shape = Stages(stages, is_over=is_over, idle_seconds=settings.idle_seconds if settings.shape == "zero" else 0)
    shape.runner, environment.shape_class = environment.runner, shape
    return shape
