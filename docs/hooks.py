"""Hooks of `mkdocs build`: generated references, pages of other folders, diagrams and links."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]+)\)")
_DIAGRAM = re.compile(r"<!-- diagram: (\w+) -->")
# pages outside docs/ keep their path on the site
ELSEWHERE = (
    "tasks/*/README.md",
    "reward_models/*.md",
    "training/RESULTS.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and those of other folders."""
    _find_generators()
    import code_metrics
    import reference

    pages = {
        "reference/commands.md": reference.commands_page(),
        "reference/api.md": reference.api_page(HERE / "api.yaml"),
        "reference/code.md": code_metrics.page(ROOT),
    }
    for pattern in ELSEWHERE:
        for path in sorted(ROOT.glob(pattern)):
            pages[path.relative_to(ROOT).as_posix()] = path.read_text("utf-8")
    for uri, text in pages.items():
        page = File.generated(config, uri, content=text)
        if uri.startswith("tasks/"):
            # linked from the page of all suites
            page.inclusion = page.inclusion.NOT_IN_NAV
        files.append(page)
    return files


def _find_generators() -> None:
    """Make the generators importable; mkdocs resets the path after each hook."""
    sys.path[:0] = [str(HERE), str(ROOT / "benchmarks")]


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links and images between repository files at the site, and draw the diagrams."""
    _find_generators()
    import diagrams

    uri = page.file.src_uri
    published = {file.src_uri for file in files.documentation_pages()}

    def relink(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        if target.startswith(("#", "http://", "https://", "mailto:")):
            return match[0]
        path, _, anchor = target.partition("#")
        found = resolve(uri, path, published)
        if found is None:
            return text
        return f"{image}[{text}]({found}{'#' + anchor if anchor else ''})"

    linked = _outside_code(markdown, lambda text: _LINK.sub(relink, text))
    return _DIAGRAM.sub(lambda match: diagrams.draw(match[1]), linked)


def resolve(uri: str, path: str, published: set[str]) -> str | None:
    """A repository link as a link of the site; None if the site lacks its target."""
    own = uri if (ROOT / uri).is_file() else f"docs/{uri}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(own), path))
    for candidate in (target.removeprefix("docs/"), f"{target}/README.md"):
        if candidate in published or (HERE / candidate).is_file():
            return posixpath.relpath(candidate, posixpath.dirname(uri) or ".")
    return None


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Apply a change outside fenced blocks."""
    parts = re.split(r"(^```.*?^```\s*$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if n % 2 else change(part) for n, part in enumerate(parts))
