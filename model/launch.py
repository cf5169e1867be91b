"""torchrun, with the exit code of the process that failed.

    python -m model.launch --nnodes 2 --node-rank 0 --master-addr HOST --master-port 29500 -m model fit ...

torchrun itself ends with 1 whatever happened; a Job has to tell a configuration that must be mended first (2) from a pod that was
told to stop (143). Flags are torchrun's: ``python -m model.launch --help``.
"""

import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from model.signals import stop_on_sigterm


def main() -> int:
    """Run torchrun on the program's arguments."""
    try:
        torchrun()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A process that a signal ended has the signal's number, negated.
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + signal.Signals(error.sigval).value
    return 0


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
