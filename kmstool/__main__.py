"""`python -m kmstool`."""

from kmstool.cli.main import run

run()
