"""Checkpoints: which are whole, each evaluated, and which one is the best."""
