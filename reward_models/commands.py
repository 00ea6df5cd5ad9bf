"""The commands of `r2w-eval train rm`. Each prints what it made and the next step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from r2w_eval.reward_models.data.flaws import FILLINGS
from r2w_eval.reward_models.data.recipe import Corpus, build_corpus, reflection_rows, write_corpus
from r2w_eval.reward_models.data.sources import reward_data_root

from r2w_eval.errors import UsageError
from r2w_eval.ranks import is_first, on_first, only_training, refuse_several
from r2w_eval.terminal import plain_table

if TYPE_CHECKING:
    from r2w_eval.reward_models.transformer.config import TrainConfig


@dataclass(frozen=True, slots=True)
class DataChoice:
    """The data to train on: `root` is the folder of labelled sets, `without` names sets to omit."""

    root: str | None
    without: tuple[str, ...] = ()
    allow_restricted: bool = False
    fillings: int = FILLINGS
    """Variants of each text of this project that flaws are planted in."""
    synth: tuple[str, ...] = ()
    """Folders of `r2w-eval train synth`; their reflections are trained on too."""

    def build(self) -> Corpus:
        """All rows. Raises DataError, UsageError."""
        root = reward_data_root(self.root)
        restricted, without = self.allow_restricted, self.without
        return build_corpus(root, restricted, without, self.fillings, self.synth)


@dataclass(frozen=True, slots=True)
class TransformerChoice:
    """A recipe by name or file (empty: `default_config` for a CPU), a limit of its time (None: the
    recipe's own), and the folder of an earlier training to begin from (None: fresh adapters).
    """

    recipe: str
    max_seconds: float | None = None
    start: Path | None = None

    def config(self) -> TrainConfig:
        """What the training is set to. Raises UnknownName, UsageError."""
        from r2w_eval.reward_models.transformer.config import default_config
        from r2w_eval.reward_models.transformer.recipe import load_recipe

        found = load_recipe(self.recipe) if self.recipe else default_config()
        return found if self.max_seconds is None else replace(found, max_seconds=self.max_seconds)


def train(
    choice: DataChoice, out: str, data_only: bool, transformer: TransformerChoice | None
) -> None:
    """Build the data and, unless `data_only`, fit the linear model or train the transformer.

    Raises DataError, and UsageError also while another training writes to `out`, or when several
    processes are launched for what runs in one.
    """
    if transformer is None or data_only:
        refuse_several("train rm", "accelerate launch -m r2w_eval train rm --transformer")
    if choice.synth and transformer is not None and not transformer.recipe:
        raise UsageError(
            "--synth with --transformer: the mix without --recipe takes so many trees of each "
            "labelled set and none of these. Try: --recipe smollm2-cpu"
        )
    with only_training(Path(out)):
        _train(choice.build(), Path(out), data_only, transformer)


def _train(
    corpus: Corpus, folder: Path, data_only: bool, transformer: TransformerChoice | None
) -> None:
    on_first(lambda: write_corpus(corpus, folder / "data.jsonl"))
    _say(f"{len(corpus.rows)} rows, hash {corpus.hash}: {folder / 'data.jsonl'}")
    if data_only:
        return
    if transformer is not None:
        _train_transformer(corpus, transformer, folder / "transformer")
        return
    from r2w_eval.reward_models.linear.fit import OUTCOME_SOURCES, fit_shipped, read_features

    if lacking := sorted(set(OUTCOME_SOURCES) - {row.source for row in corpus.rows}):
        raise UsageError(
            f"{', '.join(lacking)}: not among the sets, and the writing score is fitted on "
            f"{' and '.join(OUTCOME_SOURCES)}. Add them to --reward-data, or stop at the rows: "
            f"--data-only"
        )
    fit_shipped(corpus, read_features(reflection_rows(corpus.rows)), folder / "weights")
    click.echo(f"Weights in {folder / 'weights'}. Next: r2w-eval train rm --validate")


def _train_transformer(corpus: Corpus, choice: TransformerChoice, out: Path) -> None:
    from r2w_eval.reward_models.transformer.train import train as train_transformer

    train_transformer(corpus.rows, choice.config(), out, choice.start)
    _say(f"Weights in {out}. Next: r2w-eval train rm --export DIR --weights {out}")


def _say(what: str) -> None:
    """Print on the first process only."""
    if is_first():
        click.echo(what)


def export(folder: str, weights: str | None, truncation: str) -> None:
    """Export the transformer as a folder that other engines can load."""
    from r2w_eval.reward_models.transformer.artifact import export_artifact

    made = export_artifact(Path(folder), Path(weights) if weights else None, truncation)
    click.echo(f"Artefact in {made}. Next: r2w-eval score --scorer {made} --input F --output F")


def validate(scorer: str, out: str) -> None:
    """Run the validity suite and write its report."""
    from r2w_eval.reward_models.checks.report import REPORT, show_validity
    from r2w_eval.reward_models.scorer import open_scorer

    opened, folder = open_scorer(scorer), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    show_validity(opened, folder / REPORT)


def show_floors() -> None:
    """Print the trivial baselines of every labelled set beside the specification's values."""
    from r2w_eval.reward_models.checks.floors import floors
    from r2w_eval.reward_models.data.sources import find_sets
    from rich.console import Console

    table = plain_table("What a learned score must be above")
    for column in ("task", "reading", "value", "n", "specification"):
        table.add_column(column)
    for floor in floors(find_sets(reward_data_root(None))):
        said = f"{floor.published:.3f}" + ("" if floor.agrees else " (differs)")
        table.add_row(floor.task, floor.reading, f"{floor.value:.3f}", str(floor.n), said)
    Console().print(table)
