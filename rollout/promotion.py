"""The record of a promotion, from what the roll-out knows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rollout.cluster import Cluster
from rollout.decision import Outcome
from rollout.errors import RolloutError
from rollout.record import Record, RecordError
from rollout.report import RECORD, Report
from rollout.signing import SigningError, sign
from rollout.versions import Version


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """Writes the record beside the evidence, signed where that can be done.

    Args:
        cluster: Tells which image the release's newest revision runs.
        release: Whose.
        key: A private key for cosign; empty for keyless signatures, where there is a token for them.
        say: Takes lines of progress.
    """

    cluster: Cluster
    release: str
    key: str
    say: Callable[[str], None]

    def write(self, report: Report, version: Version) -> None:
        """For the last verdict. What cannot be recorded is said: a promotion by force, or evidence that is not at hand."""
        if not report.steps or report.steps[-1].verdict.outcome is not Outcome.PROMOTE or not report.steps[-1].evidence.slices:
            self.say("no promotion record: the evidence is not at hand, or does not promote")
            return
        last, path = report.steps[-1], report.directory / RECORD
        facts = _facts(report.head, version)
        try:
            image = self.cluster.image_digest(self.release)
            Record.of(last.evidence, report.policy, look=last.look, image_digest=image, **facts).save(path)
            unsigned = sign(path, key=self.key)
        except (RecordError, RolloutError, SigningError) as error:
            # The challenger has all traffic by now, and a champion without a record is refused where one is asked for.
            self.say(f"warning: no promotion record: {error}")
            return
        self.say(f"promotion record: {path}" + (f", unsigned: {unsigned}" if unsigned else ", signed"))


def _facts(head: Mapping[str, Any], version: Version) -> dict[str, str]:
    return {
        "release": head["release"],
        "namespace": head["namespace"],
        "model": head["model"],
        "champion": head["champion"]["version"],
        "challenger": head["challenger"]["version"],
        "bundle_digest": version.digest,
    }
