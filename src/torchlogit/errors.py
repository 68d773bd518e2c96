"""What goes wrong with what people hand over."""

from __future__ import annotations


class InputError(ValueError):
    """The input cannot be used. The message is one sentence: what is wrong, where, and what to do.

    The command line prints it and exits with 2; everything else that is raised there is a bug.
    """


class LostProcessError(RuntimeError):
    """Another process of a fit that several share has ended, or does not answer."""
