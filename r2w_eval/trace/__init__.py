"""Reasoning traces: from any thinking text to segments, and what each reflection links to."""

from r2w_eval.trace.segmentation import segment_trace
from r2w_eval.trace.types import Segment, Trace

__all__ = ["Segment", "Trace", "segment_trace"]
