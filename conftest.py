"""Excludes modules that need an engine that is not installed from the doctests.

pytest's own flag for this, `--doctest-ignore-import-errors`, would also skip broken test files.
"""

from importlib.util import find_spec

collect_ignore = [] if find_spec("verl") else ["training/cluster/verl_r2w.py"]
