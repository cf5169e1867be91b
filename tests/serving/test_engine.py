"""What loading an engine brings along."""

import subprocess
import sys

from model.bundle import Bundle
from tests.processes import ROOT

SCRIPT = """
import os, sys
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
from pathlib import Path
from model.bundle import Bundle
from serving.engine import Engine
Engine(Bundle.load(Path(sys.argv[1])))
print(len(os.listdir("/proc/self/task")))
"""


def test_loading_an_engine_starts_no_thread_not_even_one_that_reports_its_use(bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bundle.directory)],
        cwd=ROOT,
        env={"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "1\n"
