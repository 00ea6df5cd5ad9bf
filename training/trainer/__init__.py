"""A trainer run to its end: what supervised fine-tuning and reinforcement learning share."""
