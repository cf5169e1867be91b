"""kserve without pandas: nothing of it is loaded until somebody asks for it."""

import subprocess
import sys

from tests.processes import ROOT

SCRIPT = """
import sys
sys.argv[1:] = []
from serving.kserve_app import import_kserve
kserve = import_kserve()
assert "pandas" not in sys.modules
request = kserve.InferRequest("m", [kserve.InferInput("a", [2], "FP32", data=[1.0, 2.0])])
frame = request.as_dataframe()
assert frame["a"].tolist() == [1.0, 2.0]
assert sys.modules["pandas"].DataFrame is type(frame)
"""


def test_kserve_loads_pandas_only_for_a_data_frame() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, timeout=60, check=True)
