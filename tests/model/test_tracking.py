"""What a run says of the code behind it."""

import pytest

from model.tracking import git_revision


@pytest.mark.parametrize(("told", "expected"), [("0123abc", "0123abc"), ("", None), (None, None)])
def test_an_image_without_git_says_what_it_was_told(
    told: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    if told is None:
        monkeypatch.delenv("GIT_REVISION", raising=False)
    else:
        monkeypatch.setenv("GIT_REVISION", told)
    assert git_revision() == expected
