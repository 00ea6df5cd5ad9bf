"""Scorers that are trained: data recipes, training and serving of reward models."""
