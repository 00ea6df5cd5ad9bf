"""Statistics on plain numbers: intervals, paired tests, agreement, ratings, sources of noise."""

from r2w_eval.stats.inference import PairedComparison, compare_scores, measure

__all__ = ["PairedComparison", "compare_scores", "measure"]
