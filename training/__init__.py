"""The pipeline: synthesis, SFT, reward model, RL."""
