"""python -m rollout; see `rollout.cli`."""

import sys
from collections.abc import Callable

from rollout import cli, verification
from rollout.decision import Outcome
from rollout.edges import edges
from rollout.errors import RolloutError
from rollout.interruption import StoppedError

_CODES = {Outcome.PROMOTE: 0, Outcome.ROLLBACK: 1, Outcome.INCONCLUSIVE: 2}
_MENDED_FIRST = 3


def main() -> int:
    """Run a command, say in one line what the user can mend, and return the exit code."""
    try:
        options = cli.parse(sys.argv[1:])
        if options.command == "verify":
            return verification.run(options)
        with edges(options) as at:
            return _CODES[_command(options.command)(options, at)]
    except RolloutError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return _MENDED_FIRST
    except StoppedError as stopped:
        print("stopped; the release stays where it is, and the same command goes on", file=sys.stderr)
        return stopped.exit_code


def _command(name: str) -> Callable[..., Outcome]:
    if name in ("status", "watch"):
        from rollout import status  # noqa: PLC0415 -- the other commands import torch

        return {"status": status.show, "watch": status.watch}[name]
    from rollout import commands  # noqa: PLC0415 -- see above

    return {
        "start": commands.start,
        "promote": commands.promote,
        "rollback": commands.rollback,
        "aa": commands.self_test,
        "plan": commands.plan,
    }[name]


if __name__ == "__main__":
    sys.exit(main())
