"""MNIST's splits, held in memory as tensors and handed out in whole batches."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from model.augmentation import NO_AUGMENTATION, Augmentation
from model.bundle import Floats, Labels
from model.errors import ConfigError
from model.idx import DataError, read_digests, read_idx
from model.mnist import SPLIT_SEED, TRAIN_SIZE, parts, read, scale

_EVALUATION_BATCH_SIZE = 5_000


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images (n, 28, 28), float32 in [0, 1], and their labels (n,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def arrays(self) -> tuple[Floats, Labels]:
        """The same memory as numpy arrays."""
        return self.images.numpy(), self.labels.numpy()

    def take(self, indices: Tensor) -> "Split":
        """The images at ``indices`` (k,)."""
        return Split(images=self.images[indices], labels=self.labels[indices])


def _split(images: npt.NDArray[np.uint8], labels: Labels) -> Split:
    return Split(images=torch.from_numpy(scale(images)), labels=torch.from_numpy(labels))


class Batches:
    """Batches of a split, in an order that depends on the seed and the epoch alone.

    It holds where it stands (``state_dict``), so that a run resumed in the middle of an epoch sees the batches, and the
    distortions, that the uninterrupted run would have seen. Of each batch, a process of a distributed run gets every
    ``world_size``-th image: ``batch_size`` is that of the whole run, whatever the number of devices.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int | None = None,
        augmentation: Augmentation = NO_AUGMENTATION,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.augmentation = augmentation
        self.rank, self.world_size = rank, world_size
        smallest = min(batch_size, len(split) % batch_size or batch_size)
        if seed is not None and smallest < world_size:
            message = f"data.batch_size: the smallest batch of an epoch, of {smallest}, is too small for {world_size} devices"
            raise ConfigError(message)
        self.epoch = self.position = 0
        self._resumed: dict[str, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of ``epoch``, counted from 0."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: what a checkpoint keeps of it."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken."""
        self.seed, self.epoch, self._resumed = state["seed"], state["epoch"], state

    def __len__(self) -> int:
        """Batches in an epoch, the last of which may be smaller."""
        return math.ceil(len(self.split) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rest of the epoch: images (k, 28, 28) and labels (k,)."""
        # A checkpoint from the end of an epoch is followed by the whole of the next one.
        resumed, self._resumed = self._resumed, None
        start = resumed["position"] if resumed and resumed["epoch"] == self.epoch else 0
        order = self._order()
        share = slice(self.rank, None, self.world_size)
        for index in range(start, len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            if self.seed is not None:
                # Equal shares, so that the mean of the processes' gradients is the gradient of the batch.
                chosen = chosen[: len(chosen) - len(chosen) % self.world_size]
            # Three times as fast here as indexing with brackets.
            images, labels = self.split.images.index_select(0, chosen), self.split.labels.index_select(0, chosen)
            if not self.augmentation.is_identity:
                images = self.augmentation.apply(images, self._generator(self.epoch, index + 1))
            self.position = index + 1
            yield (images, labels) if self.world_size == 1 else (images[share], labels[share])

    def _order(self) -> Tensor:
        if self.seed is None:
            return torch.arange(len(self.split))
        return torch.randperm(len(self.split), generator=self._generator(self.epoch, 0))

    def _generator(self, epoch: int, index: int) -> torch.Generator:
        """Randomness of a batch (or, at index 0, of an epoch's order) that does not depend on what was drawn before."""
        state = np.random.SeedSequence([self.seed or 0, epoch, index]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


class MnistData(pl.LightningDataModule):
    """The data of a run, read and verified once.

    Args:
        data_dir: Folder with the four MNIST files and their ``SHA256SUMS``.
        batch_size: Images per optimizer step, over all devices together.
        split_seed: Which training images are for validation and which are golden. Models can be compared on the golden
            images only if this was the same for both.
        augmentation: How training images are distorted.
        augment_validation: Distort the validation images too, once: for traffic that has shifted the same way. Then the
            checkpoint that is kept, the temperature and the reference profile are those of shifted images.
        predict_images: IDX file of images for ``predict``; the test images where none is given.
    """

    def __init__(
        self,
        data_dir: str = "data/mnist",
        batch_size: int = 128,
        split_seed: int = SPLIT_SEED,
        augmentation: Augmentation = NO_AUGMENTATION,
        augment_validation: bool = False,
        predict_images: str | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            message = f"batch_size: expected at least 1, got {batch_size}"
            raise ValueError(message)
        self.data_dir, self.batch_size, self.split_seed = Path(data_dir), batch_size, split_seed
        self.augmentation, self.augment_validation = augmentation, augment_validation
        self.predict_images = predict_images
        # The order of the batches follows the seed of the run.
        self.seed = torch.initial_seed()
        self._splits: dict[str, Split] = {}

    @property
    def digest(self) -> str:
        """The sha256 of the data files' digests: names the exact bytes a model was trained on."""
        lines = sorted(f"{digest}  {name}\n" for name, digest in read_digests(self.data_dir).items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def train_batches(self) -> int:
        """Optimizer steps in an epoch."""
        return math.ceil(TRAIN_SIZE / self.batch_size)

    def split(self, name: str) -> Split:
        """``train``, ``validation``, ``golden`` or ``test``. Raises `DataError`."""
        if not self._splits:
            whole, test = (_split(*read(self.data_dir, prefix)) for prefix in ("train", "t10k"))
            order = {name: torch.from_numpy(indices) for name, indices in parts(self.split_seed).items()}
            self._splits = {"test": test} | {name: whole.take(indices) for name, indices in order.items()}
            if self.augment_validation:
                self._splits["validation"] = self._augmented(self._splits["validation"])
        return self._splits[name]

    def _augmented(self, split: Split) -> Split:
        """The same distortions for every seed of a run, so that runs can be compared."""
        generator = torch.Generator().manual_seed(self.split_seed)
        return Split(images=self.augmentation.apply(split.images, generator), labels=split.labels)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was stopped."""
        return {
            "batch_size": self.batch_size,
            "split_seed": self.split_seed,
            "augmentation": asdict(self.augmentation),
            "augment_validation": self.augment_validation,
            "digest": self.digest,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise `ConfigError` where a resumed run would be shown other batches than the one that was stopped.

        What validates a checkpoint is shown the validation images of its run: others may have been trained on.
        """
        if self.trainer and self.trainer.state.fn != TrainerFn.FITTING:
            if self.trainer.state.fn == TrainerFn.VALIDATING:
                self.split_seed, self.augment_validation = state_dict["split_seed"], state_dict["augment_validation"]
                self.augmentation, self._splits = Augmentation(**state_dict["augmentation"]), {}
            return
        for name, value in self.state_dict().items():
            if value != (trained := state_dict.get(name)):
                message = f"data.{name}: the checkpoint was trained with {trained}, got {value}"
                raise ConfigError(message)

    def setup(self, stage: str) -> None:
        """Read and verify the files before anything is trained."""
        del stage
        self.split("train")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch; there is nothing to move on a CPU, and Lightning's search for it takes longer than the batch's making."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self) -> Batches:
        """The training images, shuffled anew for each epoch."""
        return self._batches(self.split("train"), batch_size=self.batch_size, seed=self.seed, augmentation=self.augmentation)

    def val_dataloader(self) -> Batches:
        """The validation images."""
        return self._batches(self.split("validation"))

    def test_dataloader(self) -> Batches:
        """The test images."""
        return self._batches(self.split("test"))

    def predict_dataloader(self) -> Batches:
        """The images of ``predict_images``, whose labels are 0, or the test images: all of them in each process, in order."""
        if self.predict_images is None:
            return Batches(self.split("test"), batch_size=_EVALUATION_BATCH_SIZE)
        images = read_idx(Path(self.predict_images))
        if images.ndim == 1:
            message = f"{self.predict_images}: expected images, got labels"
            raise DataError(message)
        return Batches(_split(images, np.zeros(len(images), np.int64)), batch_size=_EVALUATION_BATCH_SIZE)

    def _batches(self, split: Split, *, batch_size: int = _EVALUATION_BATCH_SIZE, **options: Any) -> Batches:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return Batches(split, batch_size=batch_size, rank=rank, world_size=world_size, **options)
