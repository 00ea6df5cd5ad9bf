"""The static variant of DeepResearch Bench: one fixed list of criteria for all tasks.

The criteria and their weights stand in the prompt itself; dimensions are weighted by task.
"""

from __future__ import annotations

from r2w_eval.tasks.deepresearch_bench.race import STATIC, make_suite

SUITE = make_suite(STATIC)
