"""DeepResearch Bench, RACE: reports beside a reference report, by task-specific weighted criteria.

Follows Ayanami0730/deep_research_bench@214741e (deepresearch_bench_race.py, utils/): the judge
cleans a report of citations, then scores it and the reference criterion by criterion. The value is
the report's share of both weighted totals. Variants with other prompts are suites of their own.
"""

from __future__ import annotations

from r2w_eval.tasks.deepresearch_bench.race import RACE, make_suite

SUITE = make_suite(RACE)
