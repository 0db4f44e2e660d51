"""Closed-form distraction as a method of its own; the default method begins from it too, so it is a shared part."""

from __future__ import annotations

from aizheimer.methods._closed_distraction import ClosedDistraction

__all__ = ["ClosedDistraction"]
