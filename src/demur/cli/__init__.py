"""The command ``demur``: ``commands`` puts it together, the other modules hold its parts. Parsing and printing only."""

from demur.cli.commands import app, main

__all__ = ["app", "main"]
