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

from r2w_eval.hashing import text_hash, to_plain
from r2w_eval.models.chat import CallFailed, CallStatus
from r2w_eval.models.local import Generated, Job, check_template, end_tokens, fingerprint
from r2w_eval.types import Decoding, Message


class HfEngine:
    """A checkpoint in transformers, loaded by lm-eval's `HFLM`.

    Sampling is seeded once a batch, from the seeds of its requests: the same batch gives the same
    texts, the same request in another batch may not.
    """

    def __init__(self, path: str, arguments: dict[str, Any]) -> None:
        from lm_eval.models.huggingface import HFLM

        device = {} if _has_cuda() else {"device": "cpu"}
        self._lm = HFLM(pretrained=path, **{"batch_size": 4, **device, **arguments})
        self.batch_size = int(self._lm.batch_size)
        self._path = path
        check_template(self._lm.tokenizer, path)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt by the chat template."""
        return str(self._lm.apply_chat_template(to_plain(messages)))

    def describe(self) -> dict[str, Any]:
        """Backend, weights, dtype, template."""
        return {
            "backend": "hf",
            "weights": fingerprint(self._path),
            "dtype": str(self._lm.model.dtype),
            "chat_template": text_hash(str(self._lm.tokenizer.chat_template))[:12],
        }

    def generate(self, jobs: Sequence[Job]) -> list[Generated]:
        """One batch; a prompt that fills the context takes no part in it."""
        encoded = [self._lm.tok_encode(job.prompt, add_special_tokens=False) for job in jobs]
        fitting = [i for i, tokens in enumerate(encoded) if len(tokens) < self._lm.max_length]
        made = [Generated("", None, len(tokens), 0) for tokens in encoded]
        if fitting:
            batch = self._generate_batch([encoded[i] for i in fitting], [jobs[i] for i in fitting])
            for i, generated in zip(fitting, batch, strict=True):
                made[i] = generated
        return made

    def _generate_batch(self, encoded: Sequence[list[int]], jobs: Sequence[Job]) -> list[Generated]:
        import torch

        decoding = jobs[0].decoding
        width = max(len(tokens) for tokens in encoded)
        pad = self._lm.tokenizer.pad_token_id
        rows = [[pad] * (width - len(tokens)) + tokens for tokens in encoded]
        mask = [[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in encoded]
        room = min(decoding.max_tokens or self._lm.max_gen_toks, self._lm.max_length - width)
        torch.manual_seed(_joint_seed([job.decoding.seed for job in jobs]))
        output = self._lm._model_generate(
            context=torch.tensor(rows, device=self._lm.device),
            attention_mask=torch.tensor(mask, device=self._lm.device),
            stop=list(decoding.stop) or [self._lm.tokenizer.eos_token],
            max_length=width + max(room, 1),
            **_hf_sampling(decoding),
        )
        return [
            self._finish(row[width:], len(tokens), decoding.stop)
            for row, tokens in zip(output.tolist(), encoded, strict=True)
        ]

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
