"""The command line: one file per command, thin over ``aizheimer.api``.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 bad input, 3 a requested gate
is not met, 130 interrupted. Nothing heavy is imported before a command needs it: ``aizheimer --help`` is instant.
"""

from aizheimer.cli.app import app, main

__all__ = ["app", "main"]
