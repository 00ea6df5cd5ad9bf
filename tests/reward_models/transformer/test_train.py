"""Training the transformer, on a base of one layer: it learns, goes on after a stop, and several
processes train as one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from r2w_eval.reward_models.data.flaws import build_flaws
from r2w_eval.reward_models.data.rows import Row

from r2w_eval.errors import UsageError
from r2w_eval.hashing import file_hash

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r2w_eval.reward_models.transformer import train as module  # noqa: E402
from r2w_eval.reward_models.transformer.backbone import ADAPTERS, BackboneConfig  # noqa: E402
from r2w_eval.reward_models.transformer.batches import steps, tree_weights  # noqa: E402
from r2w_eval.reward_models.transformer.config import TrainConfig  # noqa: E402
from r2w_eval.reward_models.transformer.losses import targets_of  # noqa: E402
from r2w_eval.reward_models.transformer.state import (  # noqa: E402
    STATE,
    Progress,
    require_one_start,
)
from r2w_eval.reward_models.transformer.train import train  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
HERE = Path(__file__).parent
ROOT = HERE.parents[2]
REFUSED = 7


def rows() -> list[Row]:
    """Planted flaws of six texts, all of the training part; pairs of texts for five of them: eleven
    trees.
    """
    found = [row for row in build_flaws(1, 0) if row.part == "train"]
    groups = sorted({row.split_group for row in found})[:6]
    own = [row for row in found if row.split_group in groups]
    return [r for r in own if r.split_group != groups[0] or "outcome" not in r.labels]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer with random weights, and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base")
    texts = [getattr(row.item, "reflection", "") for row in rows()]
    words = ["<pad>", "<eos>", "<unk>", *sorted({word for text in texts for word in text.split()})]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", unk_token="<unk>")
    shape = LlamaConfig(vocab_size=len(words), hidden_size=16, intermediate_size=32,
                        num_hidden_layers=1, num_attention_heads=2, pad_token_id=0,
                        eos_token_id=1)  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(base: Path, **changes: Any) -> TrainConfig:
    """Every row once, one tree a step, as long as it takes."""
    shape = BackboneConfig(layers=1, adapted=1, rank=4, base=str(base))
    usual = TrainConfig(shape, learning_rate=0.005, head_rate=0.01, max_tokens=100_000,
                        outcome_tokens=100_000, every_row=True, max_seconds=1e9)  # fmt: skip
    return replace(usual, **changes)


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_what_is_left_is_a_finished_training(base: Path, tmp_path: Path) -> None:
    train(rows(), config_of(base, epochs=25), tmp_path)
    losses = [record["loss"] for record in log_of(tmp_path)]
    quarter = len(losses) // 4
    assert sum(losses[-quarter:]) < 0.8 * sum(losses[:quarter])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "adapter.safetensors", "log.jsonl", "train.json"
    ]  # fmt: skip


def test_a_training_begins_where_another_ended(base: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(rows(), config_of(base, epochs=3), first)
    # rates of zero: what is stored is what it began from
    still = config_of(base, learning_rate=0.0, head_rate=0.0)
    train(rows(), still, second, first)
    assert (first / ADAPTERS).read_bytes() == (second / ADAPTERS).read_bytes()
    told = json.loads((second / "train.json").read_bytes())["start"]
    assert told == file_hash(first / ADAPTERS)[:24]
    other = replace(still, backbone=replace(still.backbone, rank=2))
    with pytest.raises(UsageError, match="not adapters for"):
        train(rows(), other, tmp_path / "third", first)
    with pytest.raises(UsageError, match="no adapter weights"):
        train(rows(), still, tmp_path / "third", tmp_path / "nowhere")


def test_the_dtype_of_the_base_is_the_recipes(base: Path, tmp_path: Path) -> None:
    learner = train(rows(), config_of(base, dtype="bfloat16", epochs=1), tmp_path)
    assert learner.reader.model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in learner.parameters())


def test_a_stopped_training_goes_on_to_the_same_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, whole, broken = config_of(base, epochs=3), tmp_path / "whole", tmp_path / "broken"
    train(rows(), config, whole)
    update, n_done = module._update, 0

    def killed(*values: Any) -> torch.Tensor:
        nonlocal n_done
        n_done += 1
        if n_done == 9:
            raise KeyboardInterrupt
        return update(*values)

    monkeypatch.setattr(module, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(module, "_update", killed)
    with pytest.raises(KeyboardInterrupt):
        train(rows(), config, broken)
    assert (broken / STATE).is_file() and len(log_of(broken)) == 8
    monkeypatch.setattr(module, "_update", update)
    with pytest.raises(UsageError, match="other rows or another recipe"):
        train(rows(), replace(config, learning_rate=0.01), broken)
    train(rows(), config, broken)
    names = ("adapter.safetensors", "train.json")
    assert all((broken / n).read_bytes() == (whole / n).read_bytes() for n in names)
    steps = [(record["step"], record["tokens"], record["loss"]) for record in log_of(whole)]
    assert [(r["step"], r["tokens"], r["loss"]) for r in log_of(broken)] == steps


def test_processes_that_do_not_see_one_state_are_refused() -> None:
    require_one_start([Progress(3, 9, 1.0)] * 2, Path("out"))
    with pytest.raises(UsageError, match=r"from batches 3, 0\. Expected a folder that all"):
        require_one_start([Progress(3, 9, 1.0), Progress()], Path("out"))


def test_two_processes_step_by_the_mean_of_their_gradients(base: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    code = f"import test_train; test_train.train_here({str(base)!r}, {str(tmp_path)!r})"
    common = {**os.environ, "PYTHONPATH": str(HERE), "WORLD_SIZE": "2", "MASTER_PORT": port,
              "MASTER_ADDR": "127.0.0.1"}  # fmt: skip
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT,
                         env={**common, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]  # fmt: skip
    # the linear model is fitted by one process
    assert [rank.wait(timeout=300) for rank in ranks] == [REFUSED, REFUSED]

    config = config_of(base)
    learner = module.new_learner(config, "cpu")
    trees = module.choose_trees(rows(), config, learner.encode)
    assert len(trees) % 2, "an odd number, so that one rank has nothing to do in the last round"
    weights = tree_weights(trees, config)
    taken = list(steps(trees, weights, config))
    for own in (taken[i : i + 2] for i in range(0, len(taken), 2)):
        rates = (config.learning_rate, config.head_rate)
        for group, rate in zip(learner.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * module.schedule(own[0].progress)
        learner.optimizer.zero_grad()
        for step in own:
            chosen = [trees[i] for i in step.trees]
            batch = module.join([targets_of(tree) for tree in chosen],
                                [weights[i] * step.scale for i in step.trees],
                                learner.device)  # fmt: skip
            loss = module.batch_loss(*learner.reader(chosen), batch, config.axis_weight,
                                     config.gamma)  # fmt: skip
            (loss / len(own)).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        learner.optimizer.step()
    (tmp_path / "by hand").mkdir()
    learner.save(tmp_path / "by hand")
    both = [load(tmp_path / name / "adapter.safetensors") for name in ("by hand", "together")]
    assert both[0].keys() == both[1].keys()
    for name, tensor in both[0].items():
        torch.testing.assert_close(both[1][name], tensor, atol=2e-3, rtol=2e-3)
    assert [record["step"] for record in log_of(tmp_path / "together")] == list(
        range(0, len(taken), 2)
    )


def load(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


def train_here(base: str, out: str) -> None:
    """The training in this process of several; then one that several may not share."""
    from r2w_eval.reward_models import commands

    train(rows(), config_of(Path(base)), Path(out) / "together")
    with pytest.raises(UsageError, match="Several take: accelerate launch"):
        commands.train(commands.DataChoice(None), out, data_only=False, transformer=None)
    sys.exit(REFUSED)
