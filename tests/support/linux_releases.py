"""Tests that need a kernel which is new enough."""

from __future__ import annotations

import platform

import pytest


def needs_linux(major: int, minor: int, feature: str) -> pytest.MarkDecorator:
    """Skips where the kernel is older than the one that has `feature`."""
    running = tuple(int(part) for part in platform.release().split(".")[:2])
    return pytest.mark.skipif(running < (major, minor), reason=f"needs {feature}, Linux {major}.{minor}")
