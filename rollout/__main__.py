"""python -m rollout; see `rollout.cli`."""

import sys
import traceback
from collections.abc import Callable

from rollout import cli, commands, status, verification
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
    except Exception as error:  # noqa: BLE001 -- Python's own code for it is 1, which says that the challenger was rolled back
        return _surprised(error)


def _surprised(error: Exception) -> int:
    """Say what nobody thought of, and where, unless it is the machine's or the input's."""
    if not isinstance(error, (OSError, ValueError)):
        traceback.print_exception(error)
    said = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    print(f"error: {said}", file=sys.stderr)
    return _MENDED_FIRST


def _command(name: str) -> Callable[..., Outcome]:
    return {
        "status": status.show,
        "watch": status.watch,
        "start": commands.start,
        "promote": commands.promote,
        "rollback": commands.rollback,
        "aa": commands.self_test,
        "plan": commands.plan,
    }[name]


if __name__ == "__main__":
    sys.exit(main())
