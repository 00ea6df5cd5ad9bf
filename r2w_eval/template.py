"""Prompt templates: filled in one pass, so that braces or `$INST$` in a story stay inert.

Upstream suites use `str.format` (doubled braces), `str.replace` chains or f-strings; one pass over
the template gives the same bytes wherever upstream does not substitute inside substituted text.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass

from r2w_eval.errors import UsageError
from r2w_eval.hashing import text_hash
from r2w_eval.paths import packaged_text

_BRACES = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


@functools.lru_cache(maxsize=256)
def _split(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The literal parts of a template and the names of the fields between them."""
    literals, names, start = [""], [], 0
    for match in _BRACES.finditer(text):
        literals[-1] += text[start : match.start()]
        start = match.end()
        if match[1]:
            names.append(match[1])
            literals.append("")
        else:
            literals[-1] += match[0][0]
    literals[-1] += text[start:]
    return tuple(literals), tuple(names)


def fence_mark(*texts: str) -> str:
    """What stands at both ends of a fence round these texts: their hash, which no text can hold, so
    that none of them can close its fence and speak from outside it.
    """
    return text_hash("\0".join(texts))[:12]


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt text and where it came from. `name@hash` is its identity."""

    name: str
    text: str

    @property
    def id(self) -> str:
        """Name and the first 12 hex digits of the SHA-256 of the text."""
        return f"{self.name}@{text_hash(self.text)[:12]}"

    def fill(self, **fields: str) -> str:
        """Fill `{name}` fields; `{{` and `}}` become single braces. Raises UsageError for a field
        that nothing is given for.

        >>> Template("t", "{{a}} {x}").fill(x="{y}")
        '{a} {y}'
        """
        literals, names = _split(self.text)
        if unknown := set(names) - fields.keys():
            told, known = (", ".join(f"{{{n}}}" for n in sorted(own)) for own in (unknown, fields))
            raise UsageError(
                f"prompt {self.name}: nothing fills {told}, only {known}. Mend the prompt; braces "
                f"that are text are doubled: {{{{ and }}}}"
            )
        filled = (fields[name] for name in names)
        return "".join(itertools.chain(*zip(literals, filled, strict=False), literals[-1:]))

    def replace(self, **fields: str) -> str:
        """Replace literal markers (the keys, as written in the template) in one pass.

        >>> Template("t", "$Q$: {x}").replace(**{"$Q$": "{x}", "{x}": "1"})
        '{x}: 1'
        """
        # the longest first, so that no marker hides one that begins alike
        names = sorted(fields, key=len, reverse=True)
        pattern = re.compile("|".join(re.escape(name) for name in names))
        return pattern.sub(lambda match: fields[match[0]], self.text)


@functools.cache
def load_prompt(name: str, package: str = "r2w_eval", folder: str = "prompts") -> Template:
    """A prompt that a package carries in a folder, without blank lines around it."""
    return Template(name, packaged_text(f"{folder}/{name}.txt", package).strip())
