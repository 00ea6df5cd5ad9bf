"""Settings of a run, written once: the dataclass field is the default, its help text and its flag.

A YAML file (`--config`) overrides the defaults, the command line overrides the file; an unknown
key is an error that names the nearest one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from r2w_eval.errors import DataError, UnknownName, UsageError
from r2w_eval.records.selection import read_ids
from r2w_eval.types import Decoding, Mode, is_number


def _setting(default: Any, help: str, **kwargs: Any) -> Any:
    return field(default=default, metadata={"help": help, **kwargs})


INPUT_OPTIONS = ("references", "baseline", "context")


@dataclass(frozen=True)
class RunConfig:
    """What `r2w-eval run` takes."""

    model: str = _setting(
        "",
        "Writer: a checkpoint folder or hub id, http://HOST:PORT/v1#NAME (several URLs separated "
        "by commas share the load), or smollm2 (embedded).",
    )
    tasks: str = _setting(
        "quickstart",
        "Suites, separated by commas (r2w-eval list), and tasks of lm-eval as lm_eval:NAME.",
    )
    include_path: str | None = _setting(
        None, "Folder of your own lm-eval task files, where lm_eval:NAME is one of them."
    )
    judge: tuple[str, ...] = _setting(
        ("local",),
        "Judge, repeatable: http://HOST:PORT/v1#NAME, hf:PATH, vllm:PATH, module:attr, r2w-quality "
        "(the shipped reward model), local (the embedded model reading score probabilities: a "
        "smoke test, not a judgement), or none.",
        metavar="JUDGE",
    )
    combine: str | None = _setting(
        None,
        "Combine several judges: mean (the default for two judges or more), median, trimmed (mean "
        "without the highest and the lowest), majority, or none.",
        choices=["mean", "median", "trimmed", "majority", "none"],
    )
    min_valid_judges: int | None = _setting(
        None, "Usable verdicts that a combined one needs. Default: all judges.", min=1
    )
    exclude_self: bool = _setting(
        False, "Leave judges of the writer's own model family out of the combination."
    )
    out: str | None = _setting(None, "Run folder. Default: runs/<model>-<tasks>-<hash>.")
    responses: str | None = _setting(
        None, "Judge these answers instead of generating: JSON lines, or lm-eval samples files."
    )
    only_recorded: bool = _setting(
        False, "With --responses: leave out samples that the file has no answer for."
    )
    only_complete: bool = _setting(
        False,
        "Leave out samples that --references, --baseline or --context has nothing for (counted, "
        "named).",
    )
    ids: tuple[str, ...] = _setting(
        (),
        "Only these samples, repeatable: ID,ID,... (SUITE:ID for one suite's alone), or @FILE with "
        "one id a line (r2w-eval list --ids SUITE).",
        metavar="IDS",
    )
    shuffle: bool = _setting(
        False,
        "With --limit: draw the samples by --seed, in proportion over languages and the suite's "
        "categories, instead of taking the first.",
    )
    limit: int | None = _setting(
        None, "Only N samples of each suite: the first, or drawn with --shuffle.", min=1
    )
    mode: str = _setting(
        "strict",
        "Scoring rules: strict (ours) or parity (upstream's, quirks included).",
        choices=[str(mode) for mode in Mode],
    )
    data_dir: str | None = _setting(
        None, "Folder with benchmark data. Default: $R2W_DATA, the cache."
    )
    references: str | None = _setting(
        None, "Reference texts, for suites that compare with one: JSON lines."
    )
    baseline: str | None = _setting(
        None, "Baseline answers, for suites that compare pairs: JSON lines."
    )
    context: str | None = _setting(
        None, "Folder with a text file per query, put into the prompt (deep research)."
    )
    pages: str | None = _setting(
        None,
        "Web pages that citation metrics read: live (recorded in the run folder), record:DIR "
        "(recorded in DIR), or replay:DIR (records only, never the network).",
    )
    pages_allow: str = _setting(
        "", "Networks that pages may be read from beside public addresses: 10.0.0.0/8,…"
    )
    backend: str = _setting(
        "hf", "Engine for checkpoints, through lm-eval's classes.", choices=["hf", "vllm"]
    )
    model_args: str = _setting("", "Passed to the backend as in lm-eval: dtype=bfloat16,…")
    gen_kwargs: str = _setting(
        "", "Overrides the suite's sampling: temperature=0.7,max_tokens=2048"
    )
    judge_kwargs: str = _setting(
        "", "Overrides the suite's judge sampling: temperature=0,max_tokens=1024"
    )
    omit: str = _setting(
        "", "Parameters never sent, for endpoints that refuse them: top_k,seed (recorded)."
    )
    extra_body: str = _setting(
        "",
        "JSON object added to every request of an HTTP writer, recorded: "
        '{"chat_template_kwargs": {"enable_thinking": false}}',
    )
    system_prompt: str | None = _setting(None, "System prompt of the writer.")
    think_tags: str = _setting(
        "<think>,</think>", "Opening and closing tag of the writer's thinking."
    )
    think_opened: bool = _setting(
        False,
        "The chat template itself opens the thinking; noticed without this flag for hf: and vllm:.",
    )
    samples: int = _setting(1, "Independent answers per item.", min=1)
    repeats: int = _setting(1, "Verdicts per question; needs a sampling judge.", min=1)
    seed: int = _setting(0, "Run seed; every item and sample derives its own from it.")
    score_mode: str = _setting(
        "text",
        "How judges are read: their text, or the expected score over label probabilities.",
        choices=["text", "expected"],
    )
    max_connections: int = _setting(64, "Most requests in flight per endpoint.", min=1)
    fixed_concurrency: bool = _setting(False, "Always use --max-connections; no adaptation.")
    timeout: float = _setting(600.0, "Seconds for one request, in total.", min=0.1)
    min_coverage: float = _setting(
        0.98, "Exit code 3 when a smaller share of answers came, or of verdicts is usable.", max=1.0
    )
    max_unscored: float | None = _setting(
        None, "Exit code 3 when a larger share of the answers than this has no score.", max=1.0
    )
    retry_failed: bool = _setting(
        False,
        "Ask again, past the cache, where an earlier run in this folder got no usable answer.",
    )
    cache: bool = _setting(True, "Use the reply cache shared between runs.")
    cache_dir: str | None = _setting(
        None, "Folder of the reply cache. Default: $R2W_CACHE, your cache folder."
    )
    replay: str | None = _setting(
        None,
        "Answer every request from this folder, recorded with --cache-dir (pages with --pages "
        "record:DIR/pages); what is not there is an error, never a request.",
    )
    prices: str | None = _setting(
        None, "YAML price file, US dollars per million tokens: NAME: {input: 3, output: 15}"
    )
    max_cost: float | None = _setting(
        None,
        "Stop cleanly when the run folder has cost this many US dollars (exit code 4); the same "
        "command with more goes on.",
    )
    progress_file: str | None = _setting(None, "JSON file that always holds the current progress.")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The suites asked for, without repeats, in order."""
        return tuple(dict.fromkeys(name.strip() for name in self.tasks.split(",") if name.strip()))

    @property
    def page_access(self) -> str | None:
        """`--pages`, else the pages among the records of `--replay`."""
        recorded = Path(self.replay, "pages") if self.replay else None
        if self.pages is None and recorded is not None and recorded.is_dir():
            return f"replay:{recorded}"
        return self.pages

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that the user supplies to suites, by option name."""
        named = {name: getattr(self, name) for name in INPUT_OPTIONS}
        return {name: Path(value) for name, value in named.items() if value is not None}


def merge_config(file: str | None, flags: Mapping[str, Any]) -> RunConfig:
    """Defaults, then the YAML file, then the flags that were really given. Raises UsageError."""
    config = change(RunConfig(), {**(read_config_file(file) if file else {}), **flags})
    if not config.judge:
        raise UsageError("--judge names nobody. For answers without verdicts: --judge none")
    return config


def change(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The configuration with these settings, each checked. Raises UsageError."""
    for setting in fields(RunConfig):
        if setting.name in settings:
            check_setting(setting, settings[setting.name])
    found = dict(settings)
    if "judge" in found:
        found["judge"] = split_judges(found["judge"])
    if "ids" in found:
        found["ids"] = read_ids(found["ids"])
    return replace(config, **found)


def split_judges(given: Sequence[str]) -> tuple[str, ...]:
    """Judges of repeated flags and of comma lists; addresses that share one model stay together.

    >>> split_judges(["local,http://a/v1#x", "http://a/v1,http://b/v1#y"])
    ('local', 'http://a/v1#x', 'http://a/v1,http://b/v1#y')
    """
    judges = []
    for text in given:
        addresses: list[str] = []
        for piece in filter(None, (part.strip() for part in text.split(","))):
            addresses.append(piece)
            # an address without a model shares the model of the next one
            if "#" in piece or not piece.startswith(("http://", "https://")):
                judges.append(",".join(addresses))
                addresses = []
        if addresses:
            judges.append(",".join(addresses))
    return tuple(judges)


_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple[str, ...]": (tuple,),
    "None": (type(None),),
}
_SHOWN = {"tuple[str, ...]": "texts (numbers in quotes)"}


def check_setting(setting: Field[Any], value: Any) -> None:
    """Type, choices and bounds of one setting, as its field states them. Raises UsageError."""
    names = str(setting.type).split(" | ")
    allowed = tuple(kind for name in names for kind in _TYPES[name])
    fits = isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))
    if fits and isinstance(value, tuple):
        fits = all(isinstance(part, str) for part in value)
    if fits and is_number(value):
        least, most = _bounds(setting, is_real=float in allowed)
        fits = math.isfinite(value) and least <= value <= most
    choices = setting.metadata.get("choices", (value,))
    if not fits or (value is not None and value not in choices):
        kinds = [_SHOWN.get(name, name) for name in names if name != "None"]
        expected = " or ".join(setting.metadata.get("choices", kinds))
        if int in allowed:
            least, most = _bounds(setting, is_real=True)
            expected += f", at least {least:g}" + (f", at most {most:g}" if most < math.inf else "")
        raise UsageError(
            f"--{setting.name.replace('_', '-')} {value!r:.200}: expected {expected}. "
            f"Try: r2w-eval run --help"
        )


def _bounds(setting: Field[Any], *, is_real: bool) -> tuple[float, float]:
    least = setting.metadata.get("min", 0.0 if is_real else -math.inf)
    return least, setting.metadata.get("max", math.inf)


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML's own takes the last and drops the other unsaid."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raises ConstructorError."""
        seen: set[str] = set()
        for key, _ in node.value:
            if (name := str(key.value)) in seen:
                problem = f"{name!r} is given twice. Put its lines together, or take one out"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The content of a file of settings, in which every key stands once. Raises YAMLError."""
    return yaml.load(text, _OnceLoader)


def read_config_file(path: str) -> dict[str, Any]:
    """Settings of a YAML file; names are the flags' names with `-` or `_`."""
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"--config {path!r}: {error}. Expected a YAML file of settings") from error
    if not isinstance(content, dict):
        raise UsageError(
            f"--config {path!r}: expected `setting: value` lines, as in model: smollm2"
        )
    known = {f.name for f in fields(RunConfig)}
    settings = {str(key).replace("-", "_"): value for key, value in content.items()}
    for name in settings.keys() - known:
        raise UnknownName(f"--config {path}:", name, "setting", known, "r2w-eval run --help")
    for name in ("judge", "ids"):
        if isinstance(settings.get(name), str):
            settings[name] = (settings[name],)
    return _with_tuples(settings)


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


# a run folder may come from anybody: what lets a program run, or opens a network, is named anew
NAMED_ANEW = {"model_args": "", "pages_allow": ""}


def stored_config(
    manifest: Mapping[str, Any], where: str, include_path: str | None = None
) -> RunConfig:
    """The settings that run.json holds, without those that only a user may give.

    Task files are programs: a run over some needs `include_path` from the user. Raises DataError
    for settings of another version, UsageError where the user must name the task files.
    """
    stored = manifest.get("config")
    if not isinstance(stored, dict) or not isinstance(stored.get("judge"), list):
        raise DataError(f"{where}: run.json holds no settings. Use another --out and run it anew")
    known = {f.name: f for f in fields(RunConfig)}
    if unknown := sorted(stored.keys() - known.keys()):
        raise DataError(
            f"{where}: written by r2w-eval {str(manifest.get('r2w_eval'))[:40]!r} with settings "
            f"that this version does not know: {', '.join(unknown)[:200]}. Use that version, or "
            f"run it anew with another --out"
        )
    settings = _with_tuples(stored)
    try:
        for name, value in settings.items():
            check_setting(known[name], value)
    except UsageError as error:
        raise DataError(f"{where}: run.json holds an invalid setting: {error}") from error
    if (own := settings.get("include_path")) and include_path is None:
        raise UsageError(
            f"{where}: made with the task files in {own!r:.200}. They are programs, and run only "
            f"where you name them. Look at them first, then add --include-path DIR"
        )
    return RunConfig(**{**settings, **NAMED_ANEW, "include_path": include_path})


_DECODING_TYPES = {
    "max_tokens": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
}


def override_decoding(base: Decoding, text: str, omit: str, flag: str) -> Decoding:
    """Apply `name=value,…` and then leave out what the endpoint refuses. Raises UsageError.

    >>> override_decoding(Decoding(top_k=20), "temperature=0", "top_k", "--gen-kwargs").sent()
    {'temperature': 0.0}
    """
    changes: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        name = {"max_gen_toks": "max_tokens"}.get(name.strip(), name.strip())
        if name not in _DECODING_TYPES:
            raise UnknownName(flag, name, "parameter", _DECODING_TYPES, f"{flag} temperature=0.7")
        try:
            changes[name] = _DECODING_TYPES[name](value)
        except ValueError as error:
            raise UsageError(f"{flag} {pair!r}: {error}. Expected {name}=NUMBER") from error
        if not math.isfinite(changes[name]) or (name == "max_tokens" and changes[name] < 1):
            raise UsageError(f"{flag} {pair!r}: expected a finite number, tokens at least 1")
    for name in filter(None, (part.strip() for part in omit.split(","))):
        if name not in {*_DECODING_TYPES, "seed", "stop", "response_format"}:
            raise UnknownName("--omit", name, "parameter", _DECODING_TYPES, "--omit top_k,seed")
        if name != "seed":
            changes[name] = () if name == "stop" else None
    return replace(base, **changes)
