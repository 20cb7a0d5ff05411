"""Modules that count as installed, made for a test."""

from __future__ import annotations

from dispatcher.testing.modules import module

__all__ = ["module"]
