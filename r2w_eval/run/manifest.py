"""run.json: what was asked, by which versions, and whether a folder holds the same work.

`identity` is everything that may not change inside a folder; the rest is recorded, not compared.
"""

from __future__ import annotations

import ast
import datetime
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import r2w_eval
from r2w_eval.config import RunConfig
from r2w_eval.errors import IdentityMismatch
from r2w_eval.hashing import content_hash, file_hash, to_plain
from r2w_eval.paths import folder_name
from r2w_eval.records.plan import TaskPlan, Writing
from r2w_eval.results.ensembles import Combine, EnsembleSpec, make_spec
from r2w_eval.run.opening import is_smoke_test
from r2w_eval.store import RunFolder, write_json
from r2w_eval.suites.stock_tasks import is_stock
from r2w_eval.suites.suite import load_info
from r2w_eval.types import Decoding


def make_manifest(
    config: RunConfig,
    plans: Sequence[TaskPlan],
    writing: Writing,
    judges: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of run.json for a new run."""
    return {
        "schema": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "r2w_eval": r2w_eval.__version__,
        "python": platform.python_version(),
        "model": writing.model,
        "smoke_test_judge": any(is_smoke_test(spec) for spec in config.judge),
        "identity": to_plain(
            {
                "mode": config.mode,
                "seed": writing.seed,
                "samples": config.samples,
                "repeats": config.repeats,
                "think_tags": config.think_tags,
                **_seen_opened(config, writing),
                "writer": writing.identity,
                "judges": judges,
                "ensemble": plan_ensemble(config, tuple(judges), writing.model),
                "tasks": {plan.info.name: describe_task(plan) for plan in plans},
            }
        ),
        "config": to_plain(config),
    }


def _seen_opened(config: RunConfig, writing: Writing) -> dict[str, bool]:
    """Part of the identity where the chat template was found to open the thinking. Where the user
    says so (`--think-opened`), identities of earlier versions lack it, and stay equal.
    """
    is_seen = writing.tags.opened_by_template and not config.think_opened
    return {"think_opened": True} if is_seen else {}


def describe_task(plan: TaskPlan) -> dict[str, Any]:
    """What identifies one suite in a run; `differs` lists where sampling is not the suite's own."""
    stock = is_stock(plan.info.name)
    official = plan.info if stock else load_info(plan.info.name)
    return {
        "version": plan.info.version,
        "decoding": plan.decoding.sent(),
        "judge_decoding": plan.info.judge_decoding.sent(),
        "differs": [
            *_differences("", official.decoding, plan.decoding),
            *_differences("judge ", official.judge_decoding, plan.info.judge_decoding),
        ],
        "prompts": sorted(template.id for template in plan.templates.values()),
        "data": {name: file.sha256 for name, file in plan.info.files.items()},
        "inputs": plan.inputs,
        "code": plan.info.version if stock else code_hash(plan.info.folder),
    }


def code_hash(folder: Path) -> str:
    """Hash of all modules that make a suite's scores, those of suites that they import included.

    A single module has the hash of its file.
    """
    folders = {folder: None}
    pending = [folder]
    while pending:
        for name in imported_suites(pending.pop()):
            if (other := folder.parent / name) not in folders:
                folders[other] = None
                pending.append(other)
    hashes = [file_hash(path) for own in folders for path in scoring_modules(own)]
    return hashes[0][:12] if len(hashes) == 1 else content_hash(hashes, 12)


def scoring_modules(folder: Path) -> list[Path]:
    """All but `parity.py`, which says how published figures are reproduced and makes no score."""
    return sorted(path for path in folder.glob("*.py") if path.name != "parity.py")


def imported_suites(folder: Path) -> list[str]:
    """Names of the suites whose modules the scoring modules of a folder import."""
    prefix = "r2w_eval.tasks."
    modules = [
        node.module or ""
        for path in scoring_modules(folder)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom)
    ]
    return sorted({m.removeprefix(prefix).split(".")[0] for m in modules if m.startswith(prefix)})


def _differences(who: str, official: Decoding, used: Decoding) -> list[str]:
    before, after = official.sent(), used.sent()
    return [
        f"{who}{name} {before.get(name, 'unset')} -> {after.get(name, 'unset')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def choose_folder(config: RunConfig, manifest: Mapping[str, Any]) -> Path:
    """`--out`, else a name that the same command finds again."""
    if config.out:
        return Path(config.out)
    digest = content_hash(manifest["identity"], 8)
    return Path("runs") / folder_name(f"{manifest['model']}-{'-'.join(config.task_names)}", digest)


def claim_folder(folder: RunFolder, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write run.json, or check that the folder's own is the same work. Raises IdentityMismatch.

    Judges that were added to the folder later, and their combination, stay in it.
    """
    before = folder.manifest()
    if before:
        stored = before.get("identity", {})
        identity = keep_added(stored, manifest["identity"])
        differing = list(diff_fields(stored, identity))
        # judges that are here already may be combined at any time
        if stored.get("ensemble") is None:
            differing = [line for line in differing if not line.startswith("ensemble")]
        if differing:
            raise IdentityMismatch(
                f"{folder.path} holds another configuration:\n  "
                + "\n  ".join(differing)
                + "\nUse another --out; to add a judge or to combine those of the folder: "
                f"r2w-eval judge {folder.path} --judge J --combine mean"
            )
        smoke = before.get("smoke_test_judge") or manifest["smoke_test_judge"]
        told = {"created": before["created"], "smoke_test_judge": smoke, "identity": identity}
        manifest = {**manifest, **told}
    write_json(folder.manifest_path, manifest)
    return manifest


def keep_added(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a command, with the judges and the combination that its folder holds."""
    kept = {**now, "judges": {**before.get("judges", {}), **now["judges"]}}
    # judge checks combine nothing in their identity
    if "ensemble" in now:
        kept["ensemble"] = now["ensemble"] or before.get("ensemble")
    return kept


def add_judges(
    folder: RunFolder, manifest: Mapping[str, Any], judges: Mapping[str, Any]
) -> dict[str, Any]:
    """The judges of the folder and the new ones. Raises IdentityMismatch when a judge of the same
    name has other facts: verdicts of two judges would share one name.
    """
    before: Mapping[str, Any] = manifest["identity"]["judges"]
    added = to_plain(judges)
    differing = [
        line
        for name in sorted(before.keys() & added.keys())
        for line in diff_fields(before[name], added[name], name)
    ]
    if differing:
        raise IdentityMismatch(
            f"{folder.path} holds verdicts of another judge of this name:\n  "
            + "\n  ".join(differing)
            + f"\nJudge its answers in a new run: --responses {folder.path}"
        )
    return {**before, **added}


def check_suites(folder: RunFolder, manifest: Mapping[str, Any], plans: Sequence[TaskPlan]) -> None:
    """Raises IdentityMismatch when the folder was judged under other versions, data or prompts of
    its suites: verdicts of both must not be mixed.
    """
    before = manifest["identity"]["tasks"]
    after = {plan.info.name: to_plain(describe_task(plan)) for plan in plans}
    differing = [
        line
        for name, now in after.items()
        for field in ("version", "data", "prompts")
        for line in diff_fields(before.get(name, {}).get(field), now[field], f"{name}.{field}")
    ]
    if differing:
        raise IdentityMismatch(
            f"{folder.path} was judged under another form of its suites:\n  "
            + "\n  ".join(differing)
            + f"\nJudge it with r2w-eval {manifest['r2w_eval']}, which made it, or judge "
            f"its answers in a new run: --responses {folder.path}"
        )


def diff_fields(before: Any, after: Any, path: str = "") -> Iterable[str]:
    """Every leaf that differs, as `path: before -> after`.

    >>> list(diff_fields({"a": {"b": 1}}, {"a": {"b": 2}}))
    ['a.b: 1 -> 2']
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            inner = f"{path}.{key}" if path else key
            yield from diff_fields(before.get(key), after.get(key), inner)
    elif before != after:
        told = ["{…}" if isinstance(value, dict) else repr(value) for value in (before, after)]
        yield f"{path}: {told[0]:.120} -> {told[1]:.120}"


def plan_ensemble(config: RunConfig, judges: Sequence[str], writer: str) -> EnsembleSpec | None:
    """How the judges are combined; None when they are not: with `--combine none`, or for a single
    judge without `--combine`.
    """
    if config.combine == "none" or (config.combine is None and len(judges) < 2):
        return None
    least, alone = config.min_valid_judges, config.exclude_self
    return make_spec(judges, config.combine or Combine.MEAN, least, writer, alone)


def read_ensemble(stored: Mapping[str, Any] | None) -> EnsembleSpec | None:
    """The ensemble of a manifest."""
    if stored is None:
        return None
    judges, out = tuple(stored["judges"]), tuple(stored["excluded"])
    return EnsembleSpec(judges, Combine(stored["combine"]), stored["min_valid"], out)
