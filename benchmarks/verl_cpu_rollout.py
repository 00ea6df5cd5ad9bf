"""A rollout of verl by transformers on the CPU, for verl_toy.py: verl 0.9.1 has GPU engines only.

Named in `actor_rollout_ref.model.external_lib`, it registers itself as `rollout.name=hf_cpu`.
What is sampled depends on step, prompt and number of the request alone, not on who asks first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import ray
import torch
from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

NAME = "hf_cpu"


@ray.remote(num_cpus=0)
class Server:
    """Samples from a model whose weights the trainer sends."""

    def __init__(self, path: str, response_length: int) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(path).eval()
        self._response_length = response_length
        self._step = 0
        self._asked: Counter[tuple[int, ...]] = Counter()

    @torch.no_grad()
    def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        """One response."""
        request = (self._step, *prompt_ids)
        torch.manual_seed(hash((*request, self._asked[request])) % 2**31)
        self._asked[request] += 1
        ids = torch.tensor([prompt_ids])
        temperature = float(sampling_params.get("temperature", 1.0))
        chosen = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=self._response_length,
            do_sample=temperature > 0,
            **({"temperature": temperature} if temperature > 0 else {}),
            top_k=0,
        )
        return TokenOutput(
            token_ids=chosen[0, len(prompt_ids) :].tolist(),
            stop_reason="completed",
            extra_fields={"global_steps": self._step},
        )

    def load(self, weights: dict[str, torch.Tensor], step: int) -> None:
        """Take the trainer's weights."""
        self._model.load_state_dict(weights)
        self._step = step

    def sleep(self, *_: Any, **__: Any) -> None:
        """There is nothing to free."""

    wake_up = sleep


class Replica(RolloutReplica):
    """One server."""

    async def launch_servers(self) -> None:
        """Start the server under the name that the adapter looks for."""
        server = Server.options(name=server_name(self.replica_rank)).remote(
            self.model_config.path, self.config.response_length
        )
        await server.sleep.remote()
        self.servers, self._server_handle = [server], server
        self._server_address = server_name(self.replica_rank)


class ServerAdapter(BaseRollout):
    """Sends weights from the training process to the server."""

    async def resume(self, tags: list[str]) -> None:
        """There is nothing to resume."""

    async def release(self) -> None:
        """There is nothing to free."""

    async def update_weights(
        self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int = 0, **_: Any
    ) -> None:
        """Send all weights at once: the model is small."""
        full = {name: weight.detach().cpu().clone() for name, weight in weights}
        await ray.get_actor(server_name(0)).load.remote(full, global_steps)


def server_name(rank: int) -> str:
    return f"hf_cpu_server_{rank}"


_ROLLOUT_REGISTRY[NAME, "async"] = f"{__name__}.ServerAdapter"
RolloutReplicaRegistry.register(NAME, lambda: Replica)
