"""The processor as a platform of verl, for verl_toy.py: verl 0.9.1 ships GPUs and NPUs only.

`VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=verl_cpu` registers it. Two things have no seam and are
set here: verl names its process groups `cpu:gloo,DEVICE:BACKEND`, and torch refuses `cpu` twice;
and it loads its critic with flash attention, by name, which is for GPUs.
"""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

CPU = SimpleNamespace(
    is_available=lambda: False,
    empty_cache=lambda: None,
    synchronize=lambda *_: None,
    set_device=lambda *_: None,
    device_count=lambda: 1,
    current_device=lambda: torch.device("cpu"),
    get_device_name=lambda: "cpu",
    memory_allocated=lambda *_: 0,
    memory_reserved=lambda *_: 0,
    max_memory_allocated=lambda *_: 0,
    max_memory_reserved=lambda *_: 0,
    mem_get_info=lambda *_: (0, 0),
    get_rng_state=torch.get_rng_state,
    set_rng_state=torch.set_rng_state,
)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """The processor as verl's device. Ray counts it as a GPU: start Ray with `num_gpus`."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CPU

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return True

    def current_device(self) -> Any:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Any:
        with nullcontext():
            yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None


def use_gloo_once() -> None:
    """One process group by gloo, under the name that torch accepts."""
    import verl.utils.distributed as distributed

    plain = distributed.initialize_global_process_group_ray
    distributed.initialize_global_process_group_ray = functools.partial(plain, backend="gloo")


def load_critics_with_sdpa() -> None:
    """The critic's attention by torch itself; all else as verl loads it."""
    from transformers import AutoModelForTokenClassification

    plain = AutoModelForTokenClassification.from_pretrained

    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **{**kwargs, "attn_implementation": "sdpa"})

    AutoModelForTokenClassification.from_pretrained = from_pretrained


if os.environ.get("VERL_PLATFORM") == "cpu":
    use_gloo_once()
    load_critics_with_sdpa()
