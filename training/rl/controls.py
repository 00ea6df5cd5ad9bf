"""The control of process rewards: the same training with the scores of reflections shuffled.

Shuffled scores must not beat lambda 0 (specification: r2write.md section 7): whatever is gained
with them is gained without knowing which reflection is better.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from r2w_eval.training.rl.advantages import Rollout, SegmentScore, valid_scores


def shuffle_scores(group: Sequence[Rollout], place: tuple[int, ...]) -> list[Rollout]:
    """The group with its valid scores permuted among its valid reflections.

    The permutation depends on `place` alone (seed, step, number of the group), so that a resumed
    training draws it again. Scores stay within the group, so its baseline and the size of the
    process term stay too. Invalid segments (no score, token or outcome) are left as they are.
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
