"""Molecular dynamics as a stream: the frames of a run of any length in blocks, in little memory."""

from __future__ import annotations

from dtmd.md.opening import open_run, read_dump
from dtmd.md.run import MDRun

__all__ = ["MDRun", "open_run", "read_dump"]
