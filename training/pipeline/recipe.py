"""The recipe of a whole pipeline: the settings of each section of its YAML file.

The sections `synth`, `sft` and `rl` also configure the single commands; the others describe what
the pipeline does around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from r2w_eval.training.limits import COUNT, NOT_NEGATIVE, POSITIVE, check_numbers
from r2w_eval.training.pipeline.grid import GridSettings, check_grid, rl_arms
from r2w_eval.training.prompts import LANGUAGES
from r2w_eval.training.recipe import read_recipe, recipe_path
from r2w_eval.training.rl.reference_file import read_reference_file
from r2w_eval.training.rl.rollouts import RolloutSettings
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.synthesis.loop import SynthSettings
from r2w_eval.training.trainer.sft import SFTSettings
from r2w_eval.training.trainer.stage import EMBEDDED

from r2w_eval.config import RunConfig, check_setting
from r2w_eval.errors import UsageError
from r2w_eval.suites.groups import expand_groups

LOOP = "loop"
SOURCES = (LOOP, "expert", "planted")
# settings of an evaluation that the pipeline sets itself
OWN_OF_EVALUATION = ("model", "out", "responses", "only_recorded")


@dataclass(frozen=True)
class PromptSettings:
    """The prompts of synthesis and of RL.

    file: JSON lines of prompts; default: the starter grammar
    n: number of prompts to take from the grammar
    seed: of the grammar
    languages: of the grammar, en and zh
    held: number of these prompts that are held out for the rollouts and never trained on
    data_dir: benchmark data that prompts are compared with; default: that of `evaluate`, else
        $R2W_DATA, then the cache
    """

    file: str | None = None
    n: int = 400
    seed: int = 0
    languages: tuple[str, ...] = LANGUAGES
    held: int = 0
    data_dir: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range."""
        check_numbers("prompts", self, {COUNT: ("n",), NOT_NEGATIVE: ("held",)})


@dataclass(frozen=True)
class TraceSettings:
    """Where the traces of SFT come from.

    sources: one or more of `loop` (writer and judge), `expert` (professional edits) and `planted`
        (flaws put into texts of this project, which needs no model and no data)
    writer, judge, internaliser: models of the loop, as in --model; default of the last two: writer
    second_judge: another model, which measures the gain of kept traces and has no part in choosing
        them; default: the judge measures it, by assessments made for this purpose
    reward_data: folder of labelled sets, for `expert`
    form: `tagged`, or `prose` with cue phrases instead of tags; RL cannot reward reflections there
    limit: most traces of `expert`, and most of `planted`
    max_chars: for `expert`, make traces of excerpts of at most this length; 0: of whole drafts
    languages: of `planted`
    """

    sources: tuple[str, ...] = ("loop",)
    writer: str = EMBEDDED
    judge: str | None = None
    internaliser: str | None = None
    second_judge: str | None = None
    reward_data: str | None = None
    form: Literal["tagged", "prose"] = "tagged"
    limit: int = 400
    max_chars: int = 0
    languages: tuple[str, ...] = LANGUAGES

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range, and a second judge that is the first."""
        check_numbers("traces", self, {COUNT: ("limit",), NOT_NEGATIVE: ("max_chars",)})
        if self.second_judge == self.models[1]:
            raise UsageError(
                f"traces.second_judge {self.second_judge!r}: is the judge itself. Name another "
                f"model, or leave it out: the judge then tells the gain by fresh assessments"
            )

    @property
    def models(self) -> tuple[str, str, str]:
        """Writer, judge and internaliser."""
        return self.writer, self.judge or self.writer, self.internaliser or self.writer

    @property
    def names(self) -> tuple[str, ...]:
        """All models of the loop: those of `models`, and the second judge if there is one."""
        return (*self.models, *filter(None, [self.second_judge]))

    @property
    def form_if_prose(self) -> dict[str, str]:
        """The form as part of an identity; older identities, all `tagged`, did not have it."""
        return {"form": self.form} if self.form == "prose" else {}


@dataclass(frozen=True)
class RewardSettings:
    """The reward model that `r2w-reward` stands for in the `rl` section.

    source: `shipped` with this package, or `trained` by the pipeline
    reward_data, without: folder of labelled sets to train on, and sets to leave out
    synth: also train on reflections of the loop: `loop` for those of this pipeline, or a folder of
        `train synth`; default: the labelled sets alone
    """

    source: Literal["shipped", "trained"] = "shipped"
    reward_data: str | None = None
    without: tuple[str, ...] = ()
    synth: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """The settings as part of an identity; older identities did not have `synth`."""
        names = [field.name for field in fields(self) if field.name != "synth" or self.synth]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class HardwareSettings:
    """The device that the dry run estimates hours for; nothing else reads it.

    teraflops: dense peak of the device in the precision of training
    train_share, generate_share: shares of that peak reached in training and in generation
    """

    teraflops: float = 400.0
    train_share: float = 0.35
    generate_share: float = 0.05

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range."""
        names = ("teraflops", "train_share", "generate_share")
        check_numbers("hardware", self, {POSITIVE: names})


@dataclass(frozen=True)
class Recipe:
    """A recipe: its name, and the settings of every section."""

    name: str
    prompts: PromptSettings
    traces: TraceSettings
    synth: SynthSettings
    sft: SFTSettings
    rm: RewardSettings
    rl: RLSettings
    grid: GridSettings
    rollouts: RolloutSettings
    evaluate: RunConfig
    hardware: HardwareSettings

    @property
    def tasks(self) -> tuple[str, ...]:
        """All suites that are evaluated, whose prompts must not be trained on."""
        beside = ",".join((self.sft.evaluation.tasks, self.rl.evaluation.tasks))
        names = (name.strip() for name in beside.split(","))
        return tuple(dict.fromkeys((*self.evaluate.task_names, *filter(None, names))))

    @property
    def data_dir(self) -> str | None:
        """Where the benchmark data lie that prompts and traces are compared with."""
        return self.prompts.data_dir or self.evaluate.data_dir

    def sft_of(self, seed: int) -> SFTSettings:
        """The SFT stage of one seed."""
        return replace(self.sft, seed=seed)


# the settings of each section, by its name in the file
SECTIONS: dict[str, type] = {
    name: kind for name, kind in get_type_hints(Recipe).items() if name != "name"
}


def load_recipe(name: str) -> Recipe:
    """Read and check a recipe file, or a shipped recipe by name. Raises UsageError, UnknownName."""
    path = recipe_path(name)
    recipe = Recipe(path.stem, **read_recipe(path, SECTIONS))
    check_recipe(recipe, str(path))
    return recipe


def check_recipe(recipe: Recipe, where: str) -> None:
    """Check what the types do not express. Raises UsageError."""
    wrong = [name for name in recipe.traces.sources if name not in SOURCES]
    if wrong or not is_set(recipe.traces.sources):
        raise UsageError(
            f"{where}: traces.sources: {', '.join(wrong or recipe.traces.sources) or 'none'}: "
            f"expected one or more of {', '.join(SOURCES)}, each once"
        )
    for section in ("prompts", "traces"):
        chosen = getattr(recipe, section).languages
        if not is_set(chosen) or set(chosen) - set(LANGUAGES):
            raise UsageError(
                f"{where}: {section}.languages: {', '.join(chosen) or 'none'}: expected one or "
                f"more of {', '.join(LANGUAGES)}, each once"
            )
    if recipe.rollouts.samples and not recipe.prompts.held:
        raise UsageError(
            f"{where}: rollouts.samples {recipe.rollouts.samples}: there are no prompts to write "
            f"for. Set prompts.held, as in held: 60"
        )
    check_grid(recipe.grid, recipe.rl, where)
    _check_replaced(recipe, where)
    _check_reward(recipe, where)
    arms = rl_arms(recipe.rl, recipe.grid).values()
    if recipe.traces.form == "prose" and any(arm.reads_reflections for arm in arms):
        raise UsageError(
            f"{where}: traces.form prose: rewards of reflections need tags. Set grid.lambdas: "
            f"[0.0] without rl.penalties of redundancy and form, or traces.form: tagged"
        )
    if recipe.rl.references:
        # before hours of SFT, and not after them
        read_reference_file(Path(recipe.rl.references))
    _check_evaluation(recipe.evaluate, where)


def _check_replaced(recipe: Recipe, where: str) -> None:
    """Raise UsageError for a setting in whose place the pipeline takes another, unless it is the
    default or among those that are taken: nothing would say that it did nothing.
    """
    grid, usual = recipe.grid, RLSettings()
    weight = "rl.process_mapping.weight"
    settings: dict[str, tuple[Any, Any, str, Sequence[Any]]] = {
        "sft.seed": (recipe.sft.seed, SFTSettings().seed, "grid.seeds", grid.seeds),
        "rl.seed": (recipe.rl.seed, usual.seed, "grid.seeds", grid.seeds),
        weight: (recipe.rl.process_mapping.weight, usual.process_mapping.weight, "grid.lambdas",
                 grid.lambdas),
        "rl.model": (recipe.rl.model, usual.model, "sft.model", [recipe.sft.model]),
    }  # fmt: skip
    for name, (value, default, place, taken) in settings.items():
        if value != default and value not in taken:
            raise UsageError(
                f"{where}: {name} {value}: the pipeline trains by {place}, which has "
                f"{', '.join(map(str, taken))}. Set {place}, or leave {name} out"
            )


def is_set(names: Sequence[str]) -> bool:
    """Whether there are names, all different: one that came twice would double its data."""
    return 0 < len(names) == len(set(names))


def _check_reward(recipe: Recipe, where: str) -> None:
    synth = recipe.rm.synth
    if synth and recipe.rm.source != "trained":
        raise UsageError(
            f"{where}: rm.synth {synth!r}: nothing is trained on it. Set rm.source: trained, or "
            f"leave the line out"
        )
    if synth == LOOP and LOOP not in recipe.traces.sources:
        raise UsageError(
            f"{where}: rm.synth loop: expected loop among traces.sources, or a folder of `train "
            f"synth`"
        )


def _check_evaluation(config: RunConfig, where: str) -> None:
    for setting in fields(RunConfig):
        value = getattr(config, setting.name)
        if setting.name in OWN_OF_EVALUATION and value != setting.default:
            raise UsageError(
                f"{where}: evaluate.{setting.name}: the pipeline sets it. Leave the line out"
            )
        check_setting(setting, value)
    if not config.judge:
        raise UsageError(f"{where}: evaluate.judge names nobody. For answers alone: judge: [none]")
    # before hours of training, and not after them
    expand_groups(config.task_names, config.inputs)


def plain_difference(config: RunConfig) -> Mapping[str, Any]:
    """The settings of an evaluation that differ from their defaults."""
    pairs = ((f.name, getattr(config, f.name), f.default) for f in fields(RunConfig))
    return {name: value for name, value, default in pairs if value != default}
