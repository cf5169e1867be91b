"""Serve a bundle.

    python -m serving --model_dir build/bundle --model_name digits --http_port 8080 --workers 2
    python -m serving --model_dir build/bundle --startup-profile

kserve's own flags hold, and those of `serving.flags`. Exit code 2: the flags or the bundle must be mended first.
"""

import os
import sys

from serving.startup import Startup


def main() -> int:
    """Serve until a signal; the exit code."""
    startup = Startup()
    startup.mark("interpreter")
    # Requests are the unit of parallelism: numpy's threads only take turns with the event loop. numpy reads this when imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from serving.server import run  # noqa: PLC0415 -- see above

    return run(startup)


if __name__ == "__main__":
    sys.exit(main())
