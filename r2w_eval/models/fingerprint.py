"""The identity of a checkpoint: a hash of all files that affect answers, and the user's arguments.

Hashes of large files are remembered in the user's cache, by path, size, modification time and
inode.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from r2w_eval.hashing import content_hash, file_hash
from r2w_eval.paths import cache_dir
from r2w_eval.store import write_json

# weights, their configuration, what makes tokens of texts, and adapters
_PARTS = (
    "*.safetensors", "*.bin", "*.gguf", "config.json", "generation_config.json", "*.model",
    "adapter_config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt",
)  # fmt: skip
# left behind by training, and read by nobody who generates
_NOT_READ = frozenset({"training_args.bin", "optimizer.bin", "scheduler.bin"})
REMEMBERED_FROM_BYTES = 1 << 20
# of --model-args: where and how fast a model runs, and what is recorded under another name
INERT_ARGUMENTS = frozenset(
    {
        "batch_size", "chat_template_args", "cpu_offload_gb", "data_parallel_size", "device",
        "device_map", "device_map_option", "disable_log_stats", "distributed_executor_backend",
        "dtype", "enable_prefix_caching", "enable_thinking", "enforce_eager",
        "gpu_memory_utilization", "low_cpu_mem_usage", "max_batch_size", "max_cpu_memory",
        "max_memory_per_gpu", "max_num_batched_tokens", "max_num_seqs", "offload_folder",
        "parallelize", "pipeline_parallel_size", "pretrained", "swap_space",
        "tensor_parallel_size", "think_end_token",
    }
)  # fmt: skip


def fingerprint(path: str) -> str:
    """A name for a checkpoint or adapter folder, by content; a hub id names itself.

    The first time every byte is read: 16 GB take 12 s of processor time where it has SHA
    instructions, or as long as the disk needs; from then on only changed files are read.
    """
    folder = Path(path)
    if not folder.is_dir():
        return path
    return content_hash([[file.name, _remembered_hash(file)] for file in _parts(folder)], 16)


def describe_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the user's --model-args that may change an answer; folders as their hashes.

    >>> describe_arguments({"load_in_4bit": True, "batch_size": 8})
    {'model_args': {'load_in_4bit': True}}
    """
    told = {
        name: fingerprint(value) if isinstance(value, str) else value
        for name, value in sorted(given.items())
        if name not in INERT_ARGUMENTS
    }
    return {"model_args": told} if told else {}


def describe_commit(path: str, config: Any) -> dict[str, str]:
    """The commit that a hub id stood for when its configuration was read; nothing of a folder."""
    commit = getattr(config, "_commit_hash", None)
    return {"commit": str(commit)} if commit and not Path(path).is_dir() else {}


def _parts(folder: Path) -> Iterator[Path]:
    found = {file for pattern in _PARTS for file in folder.glob(pattern)}
    return (file for file in sorted(found) if file.name not in _NOT_READ and file.is_file())


def _remembered_hash(file: Path) -> str:
    facts = file.stat()
    if facts.st_size < REMEMBERED_FROM_BYTES:
        return file_hash(file)
    place = [str(file.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino]
    memory = cache_dir() / "hashes" / f"{content_hash(place)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(memory.read_bytes())["sha256"])
    found = file_hash(file)
    # a cache that cannot be written costs the time of the next hash, and nothing else
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, {"sha256": found, "file": place[0]})
    return found
