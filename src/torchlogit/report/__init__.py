"""The report: one page, in one file, about a fitted model: is it good, and can it be trusted."""

from __future__ import annotations

from torchlogit.report.page import write_report

__all__ = ["write_report"]
