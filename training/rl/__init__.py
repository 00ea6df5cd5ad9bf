"""Reinforcement learning: rewards, their place on the tokens, GRPO, what a policy writes."""
