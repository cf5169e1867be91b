"""What is written beside a checkpoint that is there already."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.checkpoints import BEST, LAST, Checkpoints, checkpoint_dir


def trainer(directory: Path, content: bytes, *, fails: bool = False) -> Any:
    """One whose file system may end in the middle of a checkpoint."""

    def save(path: Path, *, weights_only: bool) -> None:
        assert not weights_only
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if fails:
            message = "No space left on device"
            raise OSError(message)

    return SimpleNamespace(
        fast_dev_run=False, callback_metrics={}, default_root_dir=directory, is_global_zero=True, save_checkpoint=save
    )


def test_one_that_is_cut_short_takes_nothing_away(tmp_path: Path) -> None:
    module: Any = None
    Checkpoints().on_train_epoch_end(trainer(tmp_path, b"whole"), module)
    with pytest.raises(OSError, match="No space left"):
        Checkpoints().on_train_epoch_end(trainer(tmp_path, b"ha", fails=True), module)
    files = {path.name: path.read_bytes() for path in checkpoint_dir(tmp_path).iterdir()}
    assert files == {BEST: b"whole", LAST: b"whole", "last.new": b"ha"}
