"""Reflection in thinking: traces analysed, measured, shown (`r2w-eval reflect`)."""
