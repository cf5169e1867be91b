"""Train, test and publish.

    python -m model fit --config model/configs/default.yaml       # train; leaves build/bundle
    python -m model fit --ckpt_path last                          # go on where a run was stopped
    python -m model validate|test|predict                         # use build/checkpoints/best.ckpt
    python -m model publish --bundle build/bundle                 # test the bundle, register it as challenger
    python -m model fit --publish_as digits --ckpt_path last      # the two above, as the Job of k8s/ runs them
    python -m model compare --page docs/study.md                  # the study of optimizers, batch sizes and dropout
    python -m model sync --directory build                        # send what a dead tracking server did not take
    python -m model report --bundle build/bundle                  # one page on what the model can do and where it fails

Exit codes: 0 done; 1 failed, may be tried again; 2 the command, configuration or data must be mended first;
3 publish refused the model; 128 + n stopped by signal n.
"""

import sys
from collections.abc import Callable

from jsonargparse import auto_cli
from lightning_fabric.utilities.exceptions import MisconfigurationException

from model.bundle import BundleError
from model.cli import run_lightning
from model.delivery import TrackingError, sync
from model.errors import ConfigError
from model.export import ParityError
from model.idx import DataError
from model.registry import RefusedError, publish
from model.report import report
from model.signals import stop_on_sigterm
from model.study.command import compare

EXIT_FAILED, EXIT_CONFIGURATION, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 3, 130

_COMMANDS: dict[str, Callable[..., object]] = {"compare": compare, "publish": publish, "report": report, "sync": sync}


def main() -> int:
    """Run a command, say in one line what the user can mend, and return the exit code."""
    arguments = sys.argv[1:]
    try:
        if arguments and arguments[0] in _COMMANDS:
            auto_cli(_COMMANDS[arguments[0]], args=arguments[1:], as_positional=False, prog=f"python -m model {arguments[0]}")
        else:
            run_lightning({name: str(command.__doc__).partition("\n")[0] for name, command in _COMMANDS.items()})
    except (ConfigError, DataError, BundleError, MisconfigurationException) as error:
        return _fail(error, EXIT_CONFIGURATION)
    except RefusedError as error:
        return _fail(error, EXIT_REFUSED)
    except (TrackingError, ParityError, OSError) as error:
        return _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _fail(error: Exception, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
