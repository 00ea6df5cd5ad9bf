"""What a scorer must show: validity tests, floors, baselines, the protocol of RewardBench 2."""
