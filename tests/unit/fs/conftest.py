from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.filesystems import World, world
from tests.support.programs import Program


@pytest.fixture(params=["memory", "data"], name="world")
def bucket(request: pytest.FixtureRequest) -> Iterator[World]:
    """A bucket in memory; the data engine is once the least there can be and once the product's."""
    with world(request.param) as made:
        yield made


@pytest.fixture
def consistent(world: World) -> Program:
    """A mount of the whole bucket with all timeouts 0."""
    return world.mount()


@pytest.fixture
def real() -> Iterator[World]:
    """`world` over the product's engine: the least there can be sends nothing early and has room for everything."""
    with world("data") as made:
        yield made


@pytest.fixture
def program(real: World) -> Program:
    return real.mount()
