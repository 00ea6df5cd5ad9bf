"""Controls of an ablation: trainings in which one thing is by chance and all others stay.

Shuffled process scores must not beat lambda 0 (specification: r2write.md section 7): what is gained
with them is gained without knowing which reflection is the better one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from r2w_eval.training.rl.advantages import Rollout, SegmentScore, valid_scores


def shuffle_scores(group: Sequence[Rollout], place: tuple[int, ...]) -> list[Rollout]:
    """The group's valid scores on its valid reflections, in an order drawn from `place` alone: the
    seed, the step and the number of the group, so that a resumed training draws it again.

    Within the group, since rewards are compared there: its baseline and the size of the term stay.
    What is not valid (no score, no token, or no outcome) stays as and where it is.
    """
    scores = [segment.score for rollout in group for segment in valid_scores(rollout)]
    random.Random(":".join(map(str, place))).shuffle(scores)
    drawn = iter(scores)

    def moved(rollout: Rollout) -> tuple[SegmentScore, ...]:
        own = valid_scores(rollout)
        return tuple(
            replace(segment, score=next(drawn)) if segment in own else segment
            for segment in rollout.segments
        )

    return [replace(rollout, segments=moved(rollout)) for rollout in group]
