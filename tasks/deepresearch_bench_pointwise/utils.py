"""The pointwise variant of DeepResearch Bench: the report alone, without a reference.

The value is T / 10, the weighted mean of the scores; T / (T + R) would be 1 for every report.
"""

from __future__ import annotations

from r2w_eval.tasks.deepresearch_bench.race import POINTWISE, make_suite

SUITE = make_suite(POINTWISE)
