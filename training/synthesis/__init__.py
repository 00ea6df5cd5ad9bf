"""Traces to train on: the loop of writer and judge, and the edits of experts."""
