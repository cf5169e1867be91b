"""One HTML page on what a bundle's model can do and where it fails.

    python -m model report --bundle build/bundle

It needs the bundle and the data, no server and no cluster, and is logged to the bundle's MLflow run where that is at hand.
"""

import time
from pathlib import Path

from model.bundle import MANIFEST, Bundle
from model.data import MnistData
from model.delivery import SENDING_ERRORS, TrackingError, brief, connect
from model.errors import ConfigError
from model.report_findings import measure
from model.report_page import render
from model.tracking import default_tracking_uri

REPORT = "report.html"


def report(
    bundle: Path = Path("build/bundle"),
    output: Path | None = None,
    data_dir: str = "data/mnist",
    tracking_uri: str | None = None,
    *,
    track: bool = True,
) -> Path:
    """Write a page on a bundle's model: mistakes, calibration, accuracy under shifts, lineage.

    Args:
        bundle: The bundle's directory.
        output: The page to write, or replace; report.html beside the bundle by default.
        data_dir: Folder with the MNIST files.
        tracking_uri: Of the server that knows the bundle's run; ``MLFLOW_TRACKING_URI`` or the embedded one by default.
        track: Whether the page is logged to that run, too.

    Raises:
        BundleError: The bundle is damaged.
        ConfigError: The page cannot be written where it should be.
        DataError: The data are missing or damaged.
        TrackingError: The server does not answer or does not know the run; the page is there all the same.
    """
    started = time.monotonic()
    verified = Bundle.load(bundle)
    path = output or bundle.parent / REPORT
    scratch = _claim(path)
    try:
        data = MnistData(data_dir, split_seed=verified.lineage.split_seed)
        images, labels = data.split("test").arrays()
        print(f"asking {bundle} for the {len(images):,} test images, as they are and shifted", flush=True)
        findings = measure(verified, images, labels)
        print("drawing", flush=True)
        scratch.write_text(render(verified, findings, data.digest), encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    print(f"report in {path}, {path.stat().st_size / 1000:,.0f} kB, after {time.monotonic() - started:.1f} s", flush=True)
    if track:
        _log(path, verified, tracking_uri or default_tracking_uri())
    return path


def _claim(path: Path) -> Path:
    """A new file that is to take the place of ``path``, made before the work begins that would be lost without it."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.touch()
    except OSError as error:
        message = f"output: {path} cannot be written ({error.strerror})"
        raise ConfigError(message) from error
    return scratch


def _log(path: Path, bundle: Bundle, uri: str) -> None:
    run_id = bundle.lineage.run_id
    if run_id is None:
        print(f"not logged: {bundle.directory / MANIFEST} names no MLflow run", flush=True)
        return
    try:
        client = connect(uri)
        # First, since MLflow would write to where it remembers another server's run of this id to keep its files.
        client.get_run(run_id)
        client.log_artifact(run_id, str(path))
    except SENDING_ERRORS as error:
        message = f"MLflow at {uri} did not take {path} for run {run_id} (--track false does not ask it to): {brief(error)}"
        raise TrackingError(message) from error
    print(f"logged to run {run_id} at {uri}", flush=True)
