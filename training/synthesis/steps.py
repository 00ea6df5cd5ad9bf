"""All steps of the loop as items to train reward models on, unsuccessful ones included.

Unsuccessful steps never enter a trace, but a reward model must have seen them (specification:
r2write.md section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from r2w_eval.reward_models.data.synthesis import LoopReflection
from r2w_eval.training.synthesis.leaks import shows_a_judge
from r2w_eval.training.synthesis.loop import Episode, SynthStep


def loop_reflections(episodes: Iterable[Episode]) -> Iterator[LoopReflection]:
    """The steps of all episodes except those that reveal the judge."""
    for episode in episodes:
        for step in episode.steps:
            if not step_leaks(episode, step):
                yield _item(episode, step)


def step_leaks(episode: Episode, step: SynthStep) -> bool:
    """Whether the base text, the reflection or the revised text reveals the judge."""
    prompt = episode.prompt
    texts = (step.base, step.reflection, step.text)
    return shows_a_judge(texts, prompt.lang, prompt.prompt, episode.draft)


def _item(episode: Episode, step: SynthStep) -> LoopReflection:
    prompt = episode.prompt
    earlier = tuple(one.reflection for one in episode.chain if one.round < step.round)
    return LoopReflection(
        id=f"{prompt.id}:{step.round}",
        lang=prompt.lang,
        domain=prompt.domain,
        prompt=prompt.prompt,
        draft=step.base,
        reflection=step.reflection,
        revision=step.text,
        earlier=earlier,
        level=step.level,
        label=str(step.label),
        gain=step.gain,
    )
