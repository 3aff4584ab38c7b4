"""Fixtures every lane may use."""

pytest_plugins = ["tests.support.emulator"]
