"""Model families by name: a judge should not grade its own family unflagged (harness E2).

Names are matched by their words, whatever the provider or path before them; a name that matches
nothing belongs to no known family and is never flagged.
"""

from __future__ import annotations

import re

# words that name a family, by family
_WORDS = {
    "openai": ("gpt", "chatgpt", "o1", "o3", "o4"),
    "anthropic": ("claude",),
    "google": ("gemini", "gemma", "palm"),
    "meta": ("llama",),
    "qwen": ("qwen", "qwq", "tongyi"),
    "deepseek": ("deepseek",),
    "mistral": ("mistral", "mixtral", "ministral", "magistral"),
    "cohere": ("command", "aya"),
    "microsoft": ("phi",),
    "zhipu": ("glm", "chatglm"),
    "moonshot": ("kimi", "moonshot"),
    "bytedance": ("doubao", "seed"),
    "baidu": ("ernie",),
    "xai": ("grok",),
    "internlm": ("internlm",),
    "minimax": ("minimax", "abab"),
    "yi": ("yi",),
    "smollm": ("smollm",),
    "olmo": ("olmo", "tulu"),
}
_FAMILIES = {word: family for family, words in _WORDS.items() for word in words}
_WORD = re.compile(r"o[134](?![0-9])|[a-z]+")


def family_of(model: str) -> str | None:
    """The family that a model's name tells; None when it tells none.

    A distilled model counts to the family that its name begins with.

    >>> family_of("Qwen/Qwen3-8B-Instruct"), family_of("http://h/v1#gpt-4o"), family_of("my-model")
    ('qwen', 'openai', None)
    >>> family_of("deepseek-ai/DeepSeek-R1-Distill-Llama-8B")
    'deepseek'
    """
    name = model.rstrip("/").rpartition("#")[2].lower()
    for part in (name.rpartition("/")[2], name):
        for match in _WORD.finditer(part):
            if match[0] in _FAMILIES:
                return _FAMILIES[match[0]]
    return None


def is_own_family(writer: str, judge: str) -> bool:
    """Writer and judge are the same model, or known to be of one family.

    >>> is_own_family("qwen3-8b", "qwen-max"), is_own_family("mine", "qwen-max")
    (True, False)
    """
    family = family_of(judge)
    return writer == judge or (family is not None and family == family_of(writer))
