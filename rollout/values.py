"""The release's values that a roll-out reads and sets. Pure."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from rollout.errors import RolloutError
from rollout.story import Stage, Story

Values = Mapping[str, Any]
Path = tuple[str, ...]

# Of no meaning to Knative or KServe; a new value of it makes a new revision of the same model.
MARK = "chiffre.dev/rollout"

_URI, _PERCENT, _MARK = ("model", "uri"), ("canary", "percent"), ("podAnnotations", MARK)
_IMAGE: tuple[Path, ...] = (("image", "repository"), ("image", "tag"), ("image", "digest"))
_MODEL = re.compile(r"mlflow://([^/@?#]+)/([1-9][0-9]*)")
_REFERENCE = re.compile(
    r"(?P<repository>[^@]+?)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def value(values: Values, path: Path) -> Any:
    """What stands at a path; None where nothing does."""
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def model(values: Values) -> tuple[str, str]:
    """The registered model's name and version. Raises `RolloutError` where the model is no version of the registry."""
    uri = str(value(values, _URI) or "")
    if not (found := _MODEL.fullmatch(uri)) or found[1] == "runs":
        message = (
            f"model.uri: expected mlflow://NAME/VERSION in the release, got {uri or 'nothing'}: a roll-out compares two versions"
        )
        raise RolloutError(message)
    return unquote(found[1]), found[2]


def uri(name: str, version: str) -> str:
    """Where KServe finds a version."""
    return f"mlflow://{quote(name, safe='')}/{version}"


def percent(values: Values) -> int | None:
    """The newest pods' share; None for all."""
    found = value(values, _PERCENT)
    return None if found is None else int(found)


def mark(values: Values) -> str:
    """What makes this revision differ from another of the same model."""
    return str(value(values, _MARK) or "")


def image(values: Values) -> str:
    """The server's image: REPOSITORY[:TAG][@DIGEST], without a tag where that is the chart's."""
    repository, tag, digest = (value(values, path) for path in _IMAGE)
    return f"{repository or ''}{f':{tag}' if tag else ''}{f'@{digest}' if digest else ''}"


def read_image(reference: str) -> dict[Path, Any]:
    """The values of an image's reference. Raises `RolloutError`."""
    found = _REFERENCE.fullmatch(reference)
    if not found or not (found["tag"] or found["digest"]):
        message = f"image: expected REPOSITORY:TAG or REPOSITORY@sha256:..., got {reference!r}"
        raise RolloutError(message)
    return dict(zip(_IMAGE, (found["repository"], found["tag"], found["digest"]), strict=True))


def changes(story: Story, now: Values, before: Values, wanted_image: str) -> dict[Path, Any]:
    """What takes a release from its values ``now`` to what ``story`` says.

    Args:
        story: Of the upgrade that is to be made.
        now: Values that the user gave, as they are.
        before: Those of the revision before the roll-out.
        wanted_image: The challenger's; empty where it stays.
    """
    name, _ = model(before)
    if story.is_over:
        wanted: dict[Path, Any] = {_PERCENT: None}
    elif story.stage is Stage.PUTTING_BACK:
        wanted = {_PERCENT: 0, **{path: value(before, path) for path in (_URI, *_IMAGE, _MARK)}}
    elif story.stage is Stage.SELF_TEST:
        wanted = {_PERCENT: 0, _MARK: f"round-{story.note}"}
    else:
        images = read_image(wanted_image) if wanted_image else {}
        wanted = {_PERCENT: story.percent, _URI: uri(name, story.version), **images}
    # A null for what was never given would take the chart's own default away.
    return {path: content for path, content in wanted.items() if content is not None or value(now, path) is not None}


def settings(wanted: Mapping[Path, Any]) -> list[str]:
    """Helm's arguments."""
    words = []
    for path, content in wanted.items():
        key = ".".join(part.replace(".", r"\.") for part in path)
        text = "null" if content is None else str(content).replace("\\", "\\\\").replace(",", r"\,")
        words += ["--set" if content is None or isinstance(content, int) else "--set-string", f"{key}={text}"]
    return words
