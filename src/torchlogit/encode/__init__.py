"""Tables to numbers: profile a column, decide its kind, encode it."""

from torchlogit.encode.encoder import TableEncoder

__all__ = ["TableEncoder"]
