"""A checkpoint on its way from the first process of a distributed run to all others, before there is a trainer.

Only the first process of a run that torchrun started needs the volume with the checkpoints: the others get a copy of the file.
"""

import os
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

_TIMEOUT = timedelta(minutes=10)


def is_shared() -> bool:
    """Whether torchrun started this process and others, maybe on machines that have no file in common."""
    return distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def first_process_file(path: Path, scratch: Path) -> Path | None:
    """What the first process has at ``path``: there, or as a copy in the folder ``scratch``; None where it has no such file.

    All processes of the run have to call it.
    """
    is_first = int(os.environ["RANK"]) == 0
    content = _broadcast(path.read_bytes() if is_first and path.is_file() else b"")
    if not content:
        return None
    if is_first:
        return path
    copy = scratch / path.name
    copy.write_bytes(content)
    return copy


def _broadcast(content: bytes) -> bytes:
    """The first process's ``content``, by a process group that ends here: Lightning makes its own, for its own device."""
    store, rank, world_size = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
    store = PrefixStore("handover", store)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT)
    try:
        # Numbers and bytes, since torch would pickle an object.
        size = torch.tensor([len(content)])
        distributed.broadcast(size, src=0)
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(int(size), dtype=torch.uint8)
        if len(data):
            distributed.broadcast(data, src=0)
        return data.numpy().tobytes()
    finally:
        distributed.destroy_process_group()
