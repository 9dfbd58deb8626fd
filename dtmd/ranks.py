"""Several processes that train one potential together: what each does alone, and what they agree on.

One process is the trivial case: every method then returns what it is given.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from dtmd.errors import DtmdError

T = TypeVar("T")

_PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that `torchrun` started.

    All ranks have to call the same methods in the same order. Objects and flags go through gloo, tensors on a GPU
    through nccl.

    Attributes:
        rank: of this process, from 0; rank 0 alone writes files, logs and shows what is done.
        size: number of processes.
        local_rank: of this process among those of its machine.
        local_size: processes on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this rank: `cpu`, or for `cuda` and `auto` the GPU with its local rank, if torch sees any.

        Raises:
            DtmdError: no GPU, or fewer than ranks on this machine.
        """
        n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if name == "cuda" and n_gpus == 0:
            raise DtmdError("device: cuda is asked for, torch sees no GPU; set device to cpu or auto, or see "
                            "dtmd doctor")
        if name == "cpu" or n_gpus == 0:
            return torch.device("cpu")
        if self.size == 1:
            return torch.device("cuda")
        if self.local_size > n_gpus:
            raise DtmdError(f"{self.local_size} ranks on a machine where torch sees {n_gpus} GPUs; give torchrun "
                            f"--nproc-per-node {n_gpus}, or set device to cpu")
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def set_threads(self, threads: int | None) -> None:
        """Give torch this many CPU threads.

        None leaves the choice to torch for one process, and divides the cores of a machine among its ranks
        otherwise: torchrun would give each a single one (OMP_NUM_THREADS=1).
        """
        if threads is None and self.size > 1:
            threads = max(1, len(os.sched_getaffinity(0)) // self.local_size)
        if threads is not None:
            torch.set_num_threads(threads)

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """The part of this rank: sizes differ by one at most, some are empty where there are fewer than ranks."""
        n = len(indices)
        return indices[n * self.rank // self.size : n * (self.rank + 1) // self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, the same to the last bit on all; in place."""
        if self.size > 1:
            with _answered():
                dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it is true on some rank."""
        return self.sum(torch.tensor(int(flag))).item() > 0

    def sum_gradients(self, parameters: Iterable[Parameter], loss: Tensor) -> Tensor:
        """Sum `.grad` of the parameters, and this rank's part of the loss, in one message; returns the loss.

        A rank without a gradient adds none. The sum is taken in the precision of the loss.
        """
        if self.size == 1:
            return loss
        parameters = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total = self.sum(torch.cat([loss.reshape(1), *(g.reshape(-1).to(loss.dtype) for g in gradients)]))
        pieces = total[1:].split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)
        return total[0]

    def on_main(self, function: Callable[[], T]) -> T:
        """Call it on rank 0; all ranks wait, and return what it returned or raise its DtmdError."""
        if self.size == 1:
            return function()
        answer = [None, None]
        if self.is_main:
            try:
                answer[0] = function()
            except DtmdError as error:
                answer[1] = error
        with _answered():
            dist.broadcast_object_list(answer, src=0)
        value, error = answer
        if error is not None:
            raise error
        return value

    def raise_first(self, error: DtmdError | None) -> None:
        """Raise on all ranks the error of the first that has one."""
        errors = [error]
        if self.size > 1:
            errors = [None] * self.size
            with _answered():
                dist.all_gather_object(errors, error)
        for each in errors:
            if each is not None:
                raise each

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that succeeds on all ranks or raises the DtmdError of the first on all; they wait for each other.

        Nothing inside it may wait for other ranks.
        """
        own = None
        try:
            yield
        except DtmdError as error:
            own = error
        self.raise_first(own)


@contextmanager
def joined(tell: Callable[[DtmdError], None]) -> Iterator[Ranks]:
    """The ranks that torchrun started, as its environment variables say, or one process without them.

    A DtmdError that leaves the block on several ranks ends each with exit code 2; `tell` gets that of the first
    only, the others being its consequence. For one process it is raised.

    Raises:
        DtmdError: the ranks do not find each other, or were not started by torchrun.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks()
        return
    missing = [key for key in _PLACE if key not in os.environ]
    if missing:
        raise DtmdError(f"WORLD_SIZE is set, {', '.join(missing)} not; start several ranks with torchrun")
    ranks = Ranks(*(int(os.environ[key]) for key in _PLACE))
    store = _begin(ranks)
    try:
        yield ranks
    except DtmdError as error:
        _stop(store, ranks.size, tell, error)
    dist.destroy_process_group()


def _begin(ranks: Ranks) -> dist.Store:
    """Make the process group; returns its store."""
    if not ranks.is_main:
        logging.getLogger("dtmd").addHandler(logging.NullHandler())  # else warnings go to stderr
    # A rank that nccl waits for in vain is then an error that can be told, not an abort.
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    with _answered():
        store, _, _ = next(dist.rendezvous("env://"))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size)
    return store


def _stop(store: dist.Store, size: int, tell: Callable[[DtmdError], None], error: DtmdError) -> NoReturn:
    """End this process, after telling of the error if it is the first.

    It waits a little for the others: torchrun ends all when one has ended, and the store goes with the first machine.
    Not by an exception, since what torch takes down at exit may wait for ranks that are gone.
    """
    until = time.monotonic() + 5.0
    try:
        is_first = store.add("dtmd failed", 1) == 1
    except RuntimeError:  # the store is gone, and with it who could have told
        is_first = True
    if is_first:
        tell(error)
    with suppress(RuntimeError):
        n_told = store.add("dtmd told", 1)
        while n_told < size and time.monotonic() < until:
            time.sleep(0.02)
            n_told = store.add("dtmd told", 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)


@contextmanager
def _answered() -> Iterator[None]:
    """Within calls that other ranks have to answer: that one does not becomes a DtmdError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise DtmdError("another rank of this training has ended, or cannot be reached "
                        f"({reason}); the same command goes on from the last checkpoint") from error
