"""Objects of the user's own, named on the command line as MODULE:ATTR."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

from r2w_eval.errors import R2WError, UsageError
from r2w_eval.installed import extra_of


def load_object(flag: str, spec: str, members: Sequence[str]) -> Any:
    """What `module:attr` names: an object with `members`, or a class or function without arguments
    that makes one. Raises UsageError, whatever the user's module does, and ModuleNotFoundError for
    a library that an extra brings.
    """
    module, _, attribute = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        # an object that happens to be callable is no factory
        made = found() if inspect.isclass(found) or inspect.isroutine(found) else found
    except R2WError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and extra_of(error.name or ""):
            raise
        raise UsageError(
            f"{flag} {spec!r:.200}: {type(error).__name__}: {error}. Expected MODULE:ATTR, "
            f"importable from here: PYTHONPATH=FOLDER before the command names its folder. "
            f"Try: python -c 'from {module} import {attribute or 'NAME'}'"
        ) from error
    if lacking := [name for name in members if not hasattr(made, name)]:
        raise UsageError(
            f"{flag} {spec!r:.200}: {type(made).__name__} is no scorer, it lacks "
            f"{', '.join(lacking)}. Expected {', '.join(members)}; see docs/howto/scorer.md"
        )
    return made
