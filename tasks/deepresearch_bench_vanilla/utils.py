"""The vanilla variant of DeepResearch Bench: one overall score from 0 to 10, without criteria."""

from __future__ import annotations

from r2w_eval.tasks.deepresearch_bench.race import VANILLA, make_suite

SUITE = make_suite(VANILLA)
