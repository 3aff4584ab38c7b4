"""Fixtures every lane may use."""

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.secret_watch", "tests.support.emulator"]

# a busy machine is no failure: no test asserts on wall-clock time
settings.register_profile(
    "any-speed", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-speed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-seconds",
        type=int,
        default=0,
        help="how long each fuzz test goes on; without it, a bounded number of tries",
    )
