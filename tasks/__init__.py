"""Suites: one folder each, found by its YAML and loaded by path. See README.md in this folder."""
