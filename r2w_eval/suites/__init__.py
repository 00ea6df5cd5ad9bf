"""Suites: what a task folder holds, how it is found and loaded, and what its authors published."""

from r2w_eval.suites.suite import JudgingJob, PairwiseForm, ParityRules, Suite, TurnRule

__all__ = ["JudgingJob", "PairwiseForm", "ParityRules", "Suite", "TurnRule"]
