"""Modules of engines that are not installed have no examples to run.

They are named here, since pytest's own way (`--doctest-ignore-import-errors`) also passes over a
test file that cannot be imported, without a word.
"""

from importlib.util import find_spec

collect_ignore = [] if find_spec("verl") else ["training/cluster/verl_r2w.py"]
