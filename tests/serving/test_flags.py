"""Our flags beside kserve's own, which are its parser's."""

import argparse

import kserve.model_server
import pytest

from serving.flags import REFUSED, build_parser

# Where ours differ on purpose.
OTHER_DEFAULTS = {"model_name": ("model", "digits")}


def actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {flag: action for action in parser._actions for flag in action.option_strings if flag not in ("-h", "--help")}  # noqa: SLF001


def test_every_flag_of_kserves_is_taken_or_refused() -> None:
    ours, theirs = actions(build_parser()), actions(kserve.model_server.parser)
    assert theirs
    for flag, action in theirs.items():
        assert flag in ours, f"{flag} is new in kserve"
        if flag not in REFUSED:
            assert ours[flag].dest == action.dest
            assert (action.default, ours[flag].default) in ((action.default,) * 2, OTHER_DEFAULTS.get(action.dest)), flag
    assert set(REFUSED) <= set(theirs), "kserve has these no more"


@pytest.mark.parametrize("flag", REFUSED)
def test_a_refused_flag_says_why(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([flag], [flag, "1"]):
        with pytest.raises(SystemExit) as caught:
            build_parser().parse_args(words)
        assert caught.value.code == 2
        assert f"{flag}: expected other flags: {REFUSED[flag]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--workers", "0"], "expected at least 1, got 0"),
        (["--enable_grpc", "perhaps"], "expected true or false, got perhaps"),
        (["--grace_seconds", "inf"], "expected seconds, 0 or more, got inf"),
        (["--log_requests", "some"], "--log_requests"),
        (["--max_inst", "3"], "--max_inst"),
        (["--feedback_per_second", "0"], "expected a number above 0, got 0"),
        (["--feedback_per_second", "inf"], "expected a number above 0, got inf"),
        (["--feedback_asked_share", "1.5"], "expected a share, from 0 to 1, got 1.5"),
        (["--feedback_asked_share", "nan"], "expected a share, from 0 to 1, got nan"),
    ],
)
def test_bad_values_are_named(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(words)
    assert says in capsys.readouterr().err


def test_feedback_is_taken_only_where_that_is_said() -> None:
    assert build_parser().parse_args([]).feedback is False
