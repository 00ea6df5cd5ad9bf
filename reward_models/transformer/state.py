"""What a training of the transformer needs to go on after a kill, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from r2w_eval.reward_models.transformer.trees import Tree

from r2w_eval.errors import UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.store import write_atomically

STATE = "state.safetensors"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is: batches, which any number of processes may go on with, their tokens,
    and seconds since the first one.
    """

    batches: int = 0
    tokens: int = 0
    seconds: float = 0.0


def run_identity(config: Mapping[str, Any], trees: Sequence[Tree]) -> str:
    """The hash of all that a training depends on but its time limit and its processes."""
    ids = hashlib.sha256()
    for tree in trees:
        ids.update(tree.pack.ids.tobytes())
    settings = {name: value for name, value in config.items() if name != "max_seconds"}
    return content_hash({"config": settings, "trees": ids.hexdigest()})


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], **facts: str) -> None:
    """A whole safetensors file in one step; `facts` are its metadata."""
    from safetensors.torch import save

    write_atomically(path, [save(dict(tensors), metadata=facts)])


def write_state(
    out: Path,
    identity: str,
    parameters: Sequence[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    at: Progress,
) -> None:
    """Weights and moments of all trained parameters, and where the training stands."""
    tensors = {f"{i}.weight": parameter.detach() for i, parameter in enumerate(parameters)}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{i}.{name}": tensor for name, tensor in moments.items()}
    on_cpu = {name: tensor.to("cpu").contiguous() for name, tensor in tensors.items()}
    write_tensors(out / STATE, on_cpu, identity=identity, at=json.dumps(asdict(at)))


def read_state(
    out: Path,
    identity: str,
    parameters: Sequence[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """Put a stored state back, where there is one; where the training stands.

    Raises UsageError for the state of another training.
    """
    from safetensors import safe_open

    path = out / STATE
    if not path.is_file():
        return Progress()
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        if facts["identity"] != identity:
            raise UsageError(
                f"{path}: a training of other rows or another recipe was stopped here. Go on with "
                f"what began it, choose another --out, or remove this file to begin anew"
            )
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    moments: dict[int, dict[str, torch.Tensor]] = {}
    with torch.no_grad():
        for key, tensor in stored.items():
            place, _, name = key.partition(".")
            if name == "weight":
                parameters[int(place)].copy_(tensor)
            else:
                moments.setdefault(int(place), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return Progress(**json.loads(facts["at"]))


def require_one_start(begun: Sequence[Progress], out: Path) -> None:
    """Raises UsageError if processes would go on from different batches, and wait for each other
    for ever: they do if only some of them see the state.
    """
    if len(set(begun)) > 1:
        raise UsageError(
            f"{out}: processes go on from batches {', '.join(str(one.batches) for one in begun)}. "
            f"Expected a folder that all of them share, since the first one keeps the state there"
        )


def remove_state(out: Path) -> None:
    """A finished training has nothing to go on with."""
    (out / STATE).unlink(missing_ok=True)
