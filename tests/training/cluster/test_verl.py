"""Our module in verl's own hands: its DataProto, registries, reward loop and configuration.

Needs verl, which wants an environment of its own: pip install 'r2w-eval[verl]' pytest hypothesis.
"""

from __future__ import annotations

import asyncio
import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("verl", reason="needs verl: pip install 'r2w-eval[verl]' elsewhere")

with warnings.catch_warnings():
    # verl imports what Ray and torch deprecate
    warnings.simplefilter("ignore")
    import r2w_eval.training.cluster.verl_r2w  # noqa: F401
    import verl.trainer.ppo.ray_trainer  # noqa: F401

import torch
from omegaconf import OmegaConf, open_dict
from r2w_eval.reward_models.adapters import Unscorable
from r2w_eval.reward_models.items import ItemStatus, failed
from r2w_eval.training.cluster.launch import config_folder, write_cluster_data
from r2w_eval.training.cluster.rows import dense_row, from_runs
from r2w_eval.training.cluster.verl_r2w import (
    LOCAL,
    ROW,
    EvaluateCheckpoints,
    SegmentedOutput,
    SegmentRewards,
    read_cluster_settings,
)
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.rl.advantages import (
    LocalMapping,
    Rollout,
    SegmentScore,
    gae,
    local_terms,
    outcome_advantages,
    return_to_go,
    reward_row,
)
from tensordict import TensorDict
from toy_policy import save_policy
from verl import DataProto
from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.utils.skip import SkipManager

from r2w_eval.errors import UnknownName, UsageError

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]
WIDTH = 24


def rollouts_of(seed: int, groups: int = 3, n: int = 4) -> tuple[list[Rollout], list[str]]:
    """Random groups in random order: two reflections a rollout or none, some scores invalid."""
    chance = random.Random(seed)
    made = []
    for group in range(groups):
        for _ in range(n):
            length = chance.randint(14, WIDTH)
            scores = [chance.choice([None, 0.0, chance.uniform(-1, 1)]) for _ in range(2)]
            spans = [(2, 5), (8, length)] if chance.random() < 0.8 else []
            segments = tuple(SegmentScore(*span, s) for span, s in zip(spans, scores, strict=False))
            made.append((Rollout(length, round(chance.random(), 3), segments), f"g{group}"))
    chance.shuffle(made)
    return [one for one, _ in made], [name for _, name in made]


def proto(rollouts: list[Rollout], names: list[str], rows: list[Any]) -> DataProto:
    """verl's batch, as its trainer hands it to the estimators; one filler row at the end."""
    rewards = torch.zeros(len(rows) + 1, WIDTH)
    mask = torch.zeros(len(rows) + 1, WIDTH, dtype=torch.int64)
    for place, (rollout, row) in enumerate(zip(rollouts, rows, strict=True)):
        rewards[place, : len(row)] = torch.as_tensor(row)
        mask[place, : rollout.n_tokens] = 1
    batch = TensorDict(
        {"token_level_rewards": rewards, "response_mask": mask}, batch_size=len(rewards)
    )
    return DataProto(batch=batch, non_tensor_batch={"uid": np.array([*names, "pad"], dtype=object)})


def advantages(estimator: str, data: DataProto, **r2w: Any) -> torch.Tensor:
    config = OmegaConf.create({"adv_estimator": estimator, "r2w": r2w})
    return compute_advantage(data, adv_estimator=estimator, config=config).batch["advantages"]


@pytest.mark.parametrize("seed", range(5))
def test_lambda_0_gives_verls_own_grpo_advantages_bit_for_bit(seed: int) -> None:
    rollouts, names = rollouts_of(seed)
    plain = [from_runs([(one.n_tokens - 1, one.n_tokens, one.outcome)], WIDTH) for one in rollouts]
    off = {"process_mapping": {"weight": 0.0}}
    ours = advantages(LOCAL, proto(rollouts, names, [dense_row(one) for one in rollouts]), **off)
    assert torch.equal(ours, advantages("grpo", proto(rollouts, names, plain)))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_added_to_grpo_is_the_term_of_the_trl_path(seed: int) -> None:
    rollouts, names = rollouts_of(seed)
    rows = [dense_row(one) for one in rollouts]
    mapping = LocalMapping(weight=0.5, warmup_share=0.0)
    on = {"process_mapping": {"weight": 0.5, "warmup_share": 0.0}}
    off = {"process_mapping": {"weight": 0.0}}
    ours = advantages(LOCAL, proto(rollouts, names, rows), **on)
    base = advantages(LOCAL, proto(rollouts, names, rows), **off)
    expected = torch.zeros_like(ours)
    for name in set(names):
        places = [place for place, own in enumerate(names) if own == name]
        group = [rollouts[place] for place in places]
        # verl divides by the deviation + 1e-6, TRL by that + 1e-4
        terms = local_terms(group, outcome_advantages(group, 1e-6), mapping)
        for place, term in zip(places, terms, strict=True):
            expected[place, : len(term)] = torch.as_tensor(term)
    assert torch.allclose(ours - base, expected, atol=1e-6) and expected.abs().max() > 0.05
    assert not ours[-1].any()


def test_lambda_warms_up_by_verls_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts, names = rollouts_of(1)
    rows = [dense_row(one) for one in rollouts]
    warm = {"process_mapping": {"weight": 0.5, "warmup_share": 0.5}, "total_steps": 8}
    found = []
    for step in (1, 3, 8):
        monkeypatch.setattr(SkipManager, "step", step)
        found.append(advantages(LOCAL, proto(rollouts, names, rows), **warm))
    full = {"process_mapping": {"weight": 0.5, "warmup_share": 0.0}}
    half = {"process_mapping": {"weight": 0.25, "warmup_share": 0.0}}
    off = {"process_mapping": {"weight": 0.0}}
    for ours, constant in zip(found, (off, half, full), strict=True):
        assert torch.allclose(ours, advantages(LOCAL, proto(rollouts, names, rows), **constant))


def test_verls_gae_gives_our_returns_from_rewards_at_closing_tags() -> None:
    rollouts, names = rollouts_of(2)
    data = proto(rollouts, names, [reward_row(one, 0.3) for one in rollouts])
    values = torch.rand(len(data), WIDTH, generator=torch.Generator().manual_seed(0))
    data.batch["values"] = values * data.batch["response_mask"]
    done = compute_advantage(data, "gae", gamma=0.98, lam=0.9, config=OmegaConf.create({}))
    for place, one in enumerate(rollouts):
        own = values[place, : one.n_tokens].double().numpy()
        expected = gae(reward_row(one, 0.3), np.append(own, 0.0), 0.98, 0.9) + own
        found = done.batch["returns"][place, : one.n_tokens].numpy()
        assert np.allclose(found, expected, atol=1e-5)


def test_verls_gae_without_a_critic_is_our_return_to_go() -> None:
    """And its advantages are whitened over the whole batch, as `return_to_go` does in a group."""
    rollouts, names = rollouts_of(3)
    data = proto(rollouts, names, [reward_row(one) for one in rollouts])
    data.batch["values"] = torch.zeros(len(data), WIDTH)
    done = compute_advantage(data, "gae", gamma=1.0, lam=1.0, config=OmegaConf.create({}))
    for place, row in enumerate(return_to_go(rollouts)):
        found = done.batch["advantages"][place, : len(row)].numpy()
        assert np.allclose(found, row, atol=1e-5)


def compose(recipe: str, *overrides: str) -> Any:
    """The configuration as `python -m verl.trainer.main_ppo --config-name RECIPE` reads it."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(config_folder()), version_base=None):
        return hydra_compose(recipe, overrides=list(overrides))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy"))


def toy_config(policy: Path, recipe: str, *overrides: str) -> Any:
    return compose(
        recipe,
        "data.train_files=t.parquet",
        "data.val_files=v.parquet",
        f"actor_rollout_ref.model.path={policy}",
        "algorithm.r2w.outcome=toy_scorer:Rain",
        "algorithm.r2w.process=toy_scorer:Rain",
        "algorithm.r2w.validity=waived",
        *overrides,
    )


def response(policy: Path, text: str, **facts: Any) -> DataProto:
    """One response as verl's agent loop hands it to the reward loop."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(policy)
    prompt, ids = (torch.tensor([tokenizer(part)["input_ids"]]) for part in ("sun", text))
    both = torch.cat([prompt, ids], dim=1)
    batch = {"prompts": prompt, "responses": ids, "input_ids": both}
    plain = {
        "raw_prompt": [{"role": "user", "content": "sun"}],
        "data_source": "r2w",
        "extra_info": {"split": "train"},
        "global_steps": 405,
    } | facts
    return DataProto(
        batch=TensorDict({**batch, "attention_mask": torch.ones_like(both)}, batch_size=1),
        non_tensor_batch={name: np.array([value]) for name, value in plain.items()},
    )


TEXT = (
    "<think> <draft> sun sun </draft> <reflection> rain rain </reflection> <revision> sun "
    "</revision> <reflection> sun </reflection> </think> rain rain rain <eos>"
)


def rewarded(config: Any, policy: Path, data: DataProto) -> dict[str, Any]:
    """What our manager says of one response, in an event loop as a worker of verl has one."""

    async def run() -> dict[str, Any]:
        return await SegmentRewards(config, load_tokenizer(policy)).run_single(data)

    return asyncio.run(run())


def test_verls_reward_loop_scores_each_reflection_on_its_own_tokens(policy: Path) -> None:
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    async def run() -> dict[str, Any]:
        config = toy_config(policy, "local", "algorithm.r2w.process_mapping.weight=0.5")
        worker = RewardLoopWorker(config)
        assert isinstance(worker.reward_manager, SegmentRewards)
        return await worker.compute_score(response(policy, TEXT))

    made = asyncio.run(run())
    info = made["reward_extra_info"]
    assert made["reward_score"] == info["outcome"] == 3.0
    assert (info["reflections"], info["reflections_scored"], info["process_sum"]) == (2, 2, 0.0)
    # this tokenizer's decoder writes the blank before the closing tag as a part of that
    rollout = Rollout(20, 3.0, (SegmentScore(6, 9, 1.0), SegmentScore(13, 15, -1.0)))
    assert from_runs(json.loads(info[ROW]), 20).tolist() == dense_row(rollout).tolist()
    output = SegmentedOutput(
        prompt_ids=[10], response_ids=list(range(20)), response_mask=[1] * 20, metrics={}
    )
    output.reward_score = made["reward_score"]
    output.extra_fields["reward_extra_info"] = info
    expected = torch.as_tensor(dense_row(rollout), dtype=torch.float32)
    assert torch.equal(output.as_dict()["rm_scores"], expected)


def test_gae_gets_rewards_where_reflections_end_and_validation_the_outcome(policy: Path) -> None:
    config = toy_config(policy, "gae", "algorithm.r2w.process_mapping.weight=0.5")
    info = rewarded(config, policy, response(policy, TEXT))["reward_extra_info"]
    assert json.loads(info[ROW]) == [[8, 9, 0.5], [14, 15, -0.5], [19, 20, 3.0]]
    val = response(policy, TEXT, extra_info={"split": "val"})
    info = rewarded(config, policy, val)["reward_extra_info"]
    assert json.loads(info[ROW]) == [[19, 20, 3.0]] and info["reflections_scored"] == 0


def load_tokenizer(policy: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(policy)


def test_a_response_without_an_outcome_fails_and_is_not_paid_0(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = failed("0", ItemStatus.EMPTY, "nothing to read")
    monkeypatch.setattr("toy_scorer.Rain.score", lambda self, items: [lost] * len(items))
    with pytest.raises(Unscorable, match="no valid outcome"):
        rewarded(toy_config(policy, "local"), policy, response(policy, TEXT))


def test_a_judge_reads_the_rubric_of_the_row_and_a_row_without_one_is_refused(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r2w_eval.run.patient import PatientJudge
    from r2w_eval.types import Score

    async def score(self: Any, items: Any) -> list[Score]:
        return [items[0].parse(items[0].request, '{"scores": {"plain": 10}}')]

    monkeypatch.setattr(PatientJudge, "score", score)
    form = (
        "algorithm.r2w.outcome_form=pointwise",
        'algorithm.r2w.outcome="http://127.0.0.1:9/v1#m"',
    )
    config = toy_config(policy, "local", *form)
    rubric = json.dumps([{"name": "plain", "description": "Plain words."}])
    row = response(policy, TEXT, extra_info={"split": "train", "rubric": rubric})
    assert rewarded(config, policy, row)["reward_score"] == 1.0
    other = response(policy, TEXT, raw_prompt=[{"role": "user", "content": "rain"}])
    with pytest.raises(UsageError, match="no rubric"):
        rewarded(config, policy, other)


def test_a_judge_compares_with_the_references_of_the_prompt(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r2w_eval.run.patient import PatientJudge
    from r2w_eval.types import Score

    async def score(self: Any, items: Any) -> list[Score]:
        """A stored `zinc` ties, everything else that is stored loses."""

        def verdict(request: Any) -> str:
            ties = "zinc" in request.messages[-1].content
            return "A=B" if ties else "A>B" if request.order == "ab" else "B>A"

        return [
            one.parse(one.request, json.dumps({"verdict": verdict(one.request)})) for one in items
        ]

    monkeypatch.setattr(PatientJudge, "score", score)
    file = tmp_path / "references.jsonl"
    rows = [{"prompt_id": "p", "text": "lead"}, {"prompt": "sun", "text": "zinc"}]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    form = (
        "algorithm.r2w.outcome_form=references",
        f"algorithm.r2w.references={file}",
        'algorithm.r2w.outcome="http://127.0.0.1:9/v1#m"',
    )
    config = toy_config(policy, "local", *form)
    prompt = {"raw_prompt": [{"role": "user", "content": "sun"}]}
    row = response(policy, TEXT, extra_info={"split": "train", "id": "p"}, **prompt)
    assert rewarded(config, policy, row)["reward_score"] == 0.75
    other = response(policy, TEXT, raw_prompt=[{"role": "user", "content": "rain"}])
    with pytest.raises(UsageError, match="1 of 1 prompts without a reference"):
        rewarded(config, policy, other)
    with pytest.raises(UsageError, match=r"Set algorithm\.r2w\.references: FILE"):
        toy = toy_config(policy, "local", form[0])
        read_cluster_settings(toy.algorithm)


@pytest.mark.parametrize("recipe", ["local", "gae"])
def test_verl_accepts_our_configurations(policy: Path, recipe: str) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    small = "+actor_rollout_ref.model.override_config.attn_implementation=sdpa"
    config = toy_config(policy, recipe, small)
    critic, reference = need_critic(config), need_reference_policy(config)
    assert (critic, reference) == (recipe == "gae", False)
    validate_config(config, use_reference_policy=reference, use_critic=critic)
    # the model's configuration is what imports our module in verl's workers
    omega_conf_to_dataclass(config.actor_rollout_ref.model)
    callback = build_checkpoint_callback(config)
    assert isinstance(callback, EvaluateCheckpoints)
    callback.on_save(None, 1, "global_step_1")
    assert read_cluster_settings(config.algorithm).total_steps == 405


def test_verls_own_reward_manager_calls_our_function_by_file_and_name(policy: Path) -> None:
    import r2w_eval.reward_models.adapters as adapters
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    async def run() -> Any:
        own = f"reward.custom_reward_function.path={adapters.__file__}"
        config = toy_config(policy, "local", own, "reward.reward_manager.source=register",
                            "reward.reward_manager.name=naive")  # fmt: skip
        facts = {"reward_model": {"ground_truth": ""}, "extra_info": {"prompt": "Rain."}}
        return await RewardLoopWorker(config).compute_score(response(policy, TEXT, **facts))

    made = asyncio.run(run())
    assert made["reward_score"] == made["reward_extra_info"]["r2w_reward"] != 0.0


def test_settings_that_would_spoil_the_rows_are_refused(policy: Path) -> None:
    config = toy_config(policy, "local").algorithm
    for overrides, words in (
        ({"use_kl_in_reward": True}, "use_kl_loss=true"),
        ({"filter_groups": {"enable": True, "metric": "reward"}}, "metric=outcome"),
        ({"r2w": {"total_steps": None}}, "trainer.total_training_steps"),
    ):
        with pytest.raises(UsageError, match=words), open_dict(config):
            read_cluster_settings(OmegaConf.merge(config, overrides))
    with pytest.raises(UnknownName, match="Did you mean process_mapping"):
        read_cluster_settings({"r2w": {"proces_mapping": {}}})


def test_verl_reads_our_data_files(policy: Path, tmp_path: Path) -> None:
    from verl.trainer.ppo.utils import create_rl_dataset

    prompts = [Prompt(str(n), "en", "essay", f"rain {n}") for n in range(6)]
    data = write_cluster_data(prompts, 2, tmp_path)
    config = toy_config(policy, "local").data
    rows = create_rl_dataset(str(data.train), config, load_tokenizer(policy), None)
    assert (len(rows), data.n_train, data.n_val) == (4, 4, 2)
    assert rows[0]["raw_prompt"][0]["role"] == "user" and rows[3]["index"] == 3


def test_verls_critic_is_loaded_without_flash_attention(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lets benchmarks/verl_toy.py train verl's critic on a CPU."""
    from transformers import AutoConfig, AutoModelForTokenClassification
    from verl.utils.model import load_valuehead_model

    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[3] / "benchmarks")
    from verl_cpu import load_critics_with_sdpa

    plain = AutoModelForTokenClassification.from_pretrained
    monkeypatch.setattr(AutoModelForTokenClassification, "from_pretrained", plain)
    load_critics_with_sdpa()
    config = AutoConfig.from_pretrained(policy, num_labels=1)
    critic = load_valuehead_model(str(policy), torch.float32, config, trust_remote_code=False)
    assert critic.config._attn_implementation == "sdpa"
    assert critic(torch.tensor([[1, 9, 10]])).logits.shape == (1, 3, 1)
