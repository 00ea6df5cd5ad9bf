"""A checkpoint in transformers, through lm-eval's `HFLM`: prompts in, texts and probabilities out.

Loading, chat templates, PEFT, quantisation and `--model-args` are lm-eval's. Generation keeps what
lm-eval drops: special tokens, finish reasons, token counts; and a prompt that does not fit is an
error instead of losing its beginning (specification: harness G1, G2, G4, G5, L3).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from typing import Any

from r2w_eval.models.chat import CallFailed, CallStatus
from r2w_eval.models.chat_template import ChatTemplate
from r2w_eval.models.fingerprint import describe_arguments, describe_commit, fingerprint
from r2w_eval.models.local import Generated, Job, end_tokens
from r2w_eval.types import Decoding, Message


class HfEngine:
    """A checkpoint in transformers, loaded by lm-eval's `HFLM`.

    Sampling is seeded once a batch, from the seeds of its requests: the same batch gives the same
    texts, the same request in another batch may not.
    """

    def __init__(self, path: str, arguments: dict[str, Any]) -> None:
        from lm_eval.models.huggingface import HFLM

        device = {} if _has_cuda() else {"device": "cpu"}
        defaults = {"batch_size": 4, "trust_remote_code": False, **device}
        self._lm = HFLM(pretrained=path, **{**defaults, **arguments})
        self.batch_size = int(self._lm.batch_size)
        self._path = path
        self._arguments = arguments
        self._template = ChatTemplate(self._lm.tokenizer, path, self._lm.chat_template_args)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt by the chat template."""
        return self._template.render(messages)

    def describe(self) -> dict[str, Any]:
        """Backend, weights, dtype, template, and what the user's arguments change."""
        return {
            "backend": "hf",
            "weights": fingerprint(self._path),
            "dtype": str(self._lm.model.dtype),
            **self._template.describe(),
            **describe_arguments(self._arguments),
            **describe_commit(self._path, self._lm.model.config),
        }

    def generate(self, jobs: Sequence[Job]) -> list[Generated]:
        """One batch; a prompt that fills the context takes no part in it.

        Beside a longer prompt there is less room: who is cut by that goes on as a longer prompt, so
        that no answer ends for the sake of another.
        """
        import torch

        decoding = jobs[0].decoding
        limit = decoding.max_tokens or self._lm.max_gen_toks
        torch.manual_seed(_joint_seed([job.decoding.seed for job in jobs]))
        prompts = [self._lm.tok_encode(job.prompt, add_special_tokens=False) for job in jobs]
        rooms = [min(limit, self._lm.max_length - len(prompt)) for prompt in prompts]
        made = [Generated("", None, len(prompt), 0) for prompt in prompts]
        new: list[list[int]] = [[] for _ in jobs]
        going = [i for i, room in enumerate(rooms) if room > 0]
        while going:
            left = [rooms[i] - len(new[i]) for i in going]
            more = self._extend([prompts[i] + new[i] for i in going], max(left), decoding)
            for i, most, tokens in zip(going, left, more, strict=True):
                new[i] += tokens[:most]
                made[i] = self._finish(new[i], len(prompts[i]), decoding.stop)
            going = [
                i for i in going if made[i].finish_reason == "length" and len(new[i]) < rooms[i]
            ]
        return made

    def _extend(self, rows: Sequence[list[int]], most: int, decoding: Decoding) -> list[list[int]]:
        """New tokens of every row: so many, or as many as fit behind the longest."""
        import torch

        width = max(map(len, rows))
        pad = self._lm.tokenizer.pad_token_id
        padded = [[pad] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        output = self._lm._model_generate(
            context=torch.tensor(padded, device=self._lm.device),
            attention_mask=torch.tensor(mask, device=self._lm.device),
            stop=list(decoding.stop) or [self._lm.tokenizer.eos_token],
            max_length=min(width + most, self._lm.max_length),
            **_hf_sampling(decoding),
        )
        return [row[width:] for row in output.tolist()]

    def _finish(self, new: list[int], n_prompt: int, stop: Sequence[str]) -> Generated:
        """Cut at the end-of-text token; without one the answer was cut by its length."""
        ends = end_tokens(self._lm.model.generation_config, self._lm.tokenizer)
        end = next((i for i, token in enumerate(new) if token in ends), None)
        kept = new if end is None else new[:end]
        # special tokens stay: thinking tags may be among them
        text = str(self._lm.tok_decode(kept, skip_special_tokens=False))
        cuts = [text.find(mark) for mark in stop if mark in text]
        stopped = end is not None or bool(cuts)
        text = text[: min(cuts)] if cuts else text
        return Generated(text, "stop" if stopped else "length", n_prompt, len(kept))

    def label_probabilities(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """One pass over the shared tokens, one padded batch over the rest."""
        import torch

        paths = [
            self._lm.tok_encode(prompt + text, add_special_tokens=False) for text in continuations
        ]
        shared = len(os.path.commonprefix(paths))
        if max(map(len, paths)) > self._lm.max_length:
            raise CallFailed(CallStatus.CONTEXT, f"{shared} tokens do not fit the model's context")
        tails = [path[shared:] for path in paths]
        width = max(map(len, tails))
        device = self._lm.device
        with torch.no_grad():
            prefix = torch.tensor([paths[0][:shared]], device=device)
            first = self._lm.model(prefix, use_cache=True)
            cache = first.past_key_values
            cache.batch_repeat_interleave(len(tails))
            padded = torch.tensor([t + [0] * (width - len(t)) for t in tails], device=device)
            rest = self._lm.model(padded, past_key_values=cache, use_cache=True)
            start = first.logits[:, -1:].expand(len(tails), -1, -1)
            logits_N_T_V = torch.cat([start, rest.logits[:, :-1]], dim=1).float()
            logprobs_N_T_V = torch.log_softmax(logits_N_T_V, dim=-1)
        return [
            math.exp(sum(float(logprobs_N_T_V[n, t, token]) for t, token in enumerate(tail)))
            for n, tail in enumerate(tails)
        ]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _hf_sampling(decoding: Decoding) -> dict[str, Any]:
    """Arguments of `generate`; temperature 0 or none is greedy."""
    if not decoding.temperature:
        return {"do_sample": False, "temperature": 0.0}
    named = {"top_p": decoding.top_p, "top_k": decoding.top_k, "min_p": decoding.min_p}
    given = {name: value for name, value in named.items() if value is not None}
    # without this transformers would apply its own top_k of 50
    return {"do_sample": True, "temperature": decoding.temperature, "top_k": 0, **given}


def _joint_seed(seeds: Sequence[int | None]) -> int:
    return int(hashlib.sha256(repr(seeds).encode()).hexdigest()[:8], 16)
