"""Judges: scorers that ask a model, and how their words are read."""

from r2w_eval.judge.scorers import Scorer

__all__ = ["Scorer"]
