"""Running: from settings to plans, requests, records and outputs."""

from r2w_eval.run.job import Outcome, evaluate, judge_again

__all__ = ["Outcome", "evaluate", "judge_again"]
