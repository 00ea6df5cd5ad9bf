"""r2w-eval: evaluates, rewards and trains open-ended writing.

Independent reconstruction after the abstract of arXiv 2604.03004. The authors published no code,
prompts or data. Tags, process-reward axes, formulas and settings are this project's.
"""

__version__ = "0.1.0"
