"""The command line: one module a command; everything heavy is imported inside the commands."""

from r2w_eval.cli.app import EXIT_INTERRUPTED, cli, main

__all__ = ["EXIT_INTERRUPTED", "cli", "main"]
