"""What a roll-out writes into the release's history, one line an upgrade, and reads again. Pure."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum


class Stage(StrEnum):
    """What an upgrade of the release was for."""

    SHARE = "share"
    PAUSED = "paused"
    SELF_TEST = "A/A round"
    PUTTING_BACK = "putting back"
    ROLLED_BACK = "rolled back"
    PROMOTED = "promoted"


_OVER = (Stage.ROLLED_BACK, Stage.PROMOTED)
_DESCRIPTION = re.compile(r"roll-out of version (\d+): (.+) \(from version (\d+) of revision (\d+)\)")
_SHARE = re.compile(r"(\d+) %(, paused)?")
_NOTED = re.compile(rf"({'|'.join(stage for stage in Stage)})(?:, (.+))?")


@dataclass(frozen=True, kw_only=True)
class Story:
    """What the description of a release's revision tells of a roll-out.

    Args:
        version: The challenger's.
        champion: The champion's version.
        baseline: The release's revision before the roll-out, to whose values it is put back.
        stage: What this revision was for.
        percent: The challenger's share.
        note: The reason code of a roll-back, who forced a promotion, or the number of an A/A round.
    """

    version: str
    champion: str
    baseline: int
    stage: Stage
    percent: int = 0
    note: str = ""

    def __str__(self) -> str:
        if self.stage in (Stage.SHARE, Stage.PAUSED):
            what = f"{self.percent} %" + (", paused" if self.stage is Stage.PAUSED else "")
        else:
            what = f"{self.stage}, {self.note}" if self.note else str(self.stage)
        return f"roll-out of version {self.version}: {what} (from version {self.champion} of revision {self.baseline})"

    @classmethod
    def parse(cls, description: str) -> "Story | None":
        """None for what is no roll-out's."""
        if not (found := _DESCRIPTION.fullmatch(description)):
            return None
        version, what, champion, baseline = found.groups()
        told = replace(_NOTHING, version=version, champion=champion, baseline=int(baseline))
        if share := _SHARE.fullmatch(what):
            return replace(told, stage=Stage.PAUSED if share[2] else Stage.SHARE, percent=int(share[1]))
        if noted := _NOTED.fullmatch(what):
            return replace(told, stage=Stage(noted[1]), note=noted[2] or "")
        return None

    @property
    def is_over(self) -> bool:
        """Whether no share is left."""
        return self.stage in _OVER


_NOTHING = Story(version="", champion="", baseline=0, stage=Stage.SHARE)
