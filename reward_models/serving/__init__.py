"""Scores over HTTP, for files, and on Ray."""
