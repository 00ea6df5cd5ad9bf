"""Several processes of one training (`accelerate launch`): what the first one does for all.

The first process, rank 0, holds the lock of the folder, writes its files and says when training
ends; the others wait for its word. A process by itself is rank 0 and waits for nobody.
"""

from __future__ import annotations

import atexit
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from r2w_eval.errors import R2WError, UsageError
from r2w_eval.store import only_process

T = TypeVar("T")
PATIENCE = datetime.timedelta(days=1)
# a pipeline holds `.lock` of the same folder
LOCK = ".training.lock"
# what launchers tell a process of the others
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "ACCELERATE_", "FSDP_",
            "TORCHELASTIC_")  # fmt: skip


class FirstFailed(R2WError):
    """Rank 0 could not do its part; what it said."""


def n_processes() -> int:
    """Processes of this training, as torch's and accelerate's launchers say."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is rank 0."""
    return rank() == 0


def on_first(make: Callable[[], T]) -> T:
    """What rank 0 makes, on every rank; all ranks have to call it. Raises what it raised there, and
    FirstFailed on the others.
    """
    if n_processes() == 1:
        return make()
    made, failure = _try(make) if is_first() else (None, None)
    told = _broadcast([made, failure and str(failure)])
    if failure is not None:
        raise failure
    if told[1] is not None:
        raise FirstFailed(f"rank 0: {told[1]}")
    result: T = told[0]
    return result


def _try(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return make(), None
    except Exception as error:  # noqa: BLE001 - raised again once the others know
        return None, error


def _join() -> Any:
    """This process among the others, joined where that has not been done yet."""
    import torch
    from accelerate import PartialState

    # rank 0 may evaluate for hours
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    _leave_at_exit()
    return state


@cache
def _leave_at_exit() -> None:
    """A process that ends with its threads of communication running may be aborted."""
    atexit.register(_leave)


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def device_of_rank() -> str:
    """A GPU where there is one, of several the rank's own; else the processor."""
    import torch

    if n_processes() > 1:
        return str(_join().device)
    return "cuda" if torch.cuda.is_available() else "cpu"


def all_sum(tensor: Any) -> Any:
    """The sum of a tensor over all ranks, on every rank; all ranks have to call it."""
    from accelerate.utils import reduce

    _join()
    return reduce(tensor, "sum")


def share_gradients(parameters: Sequence[Any], n: int) -> None:
    """Put the sum over all ranks by `n` in the place of each gradient, in one message.

    What has no gradient on any rank keeps none: a gradient of zero would be moved by momentum.
    """
    import torch

    with torch.no_grad():
        known = [torch.full((1,), float(p.grad is not None), device=p.device) for p in parameters]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        summed = all_sum(torch.cat([*known, *(part.flatten() for part in parts)]))
        position = len(known)
        for place, parameter in enumerate(parameters):
            if summed[place] > 0:
                own = summed[position : position + parameter.numel()]
                parameter.grad = own.view_as(parameter) / n
            position += parameter.numel()


def from_all(own: T) -> list[T]:
    """What each rank has, by rank, on every rank; all ranks have to call it."""
    if n_processes() == 1:
        return [own]
    from accelerate.utils import gather_object

    _join()
    found: list[T] = gather_object([own])
    return found


def _broadcast(values: list[Any]) -> list[Any]:
    from accelerate.utils import broadcast_object_list

    _join()
    found: list[Any] = broadcast_object_list(values)
    return found


def environment_alone() -> dict[str, str]:
    """This environment for a process that has no part in the training, such as an evaluation."""
    return {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHED)}


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """One training at a time in a folder: rank 0 holds the lock for all of its processes.

    Raises UsageError while another training does.
    """
    with ExitStack() as held:

        def take() -> None:
            held.enter_context(only_process(folder / LOCK))

        on_first(take)
        yield


def refuse_several(command: str, instead: str) -> None:
    """Raises UsageError in one of several processes, for a command that knows nothing of them."""
    if n_processes() > 1:
        raise UsageError(
            f"{command} in one of {n_processes()} processes: it runs in one, without a launcher. "
            f"Several take: {instead}"
        )
