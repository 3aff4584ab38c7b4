import pytest

from csi.errors import ObjectTooLarge
from csi.oss.multipart import COPY_PART, MOST_PARTS, copy_plan
from csi.volume.units import GIB


@pytest.mark.parametrize("size", [1, COPY_PART, COPY_PART + 1, GIB + 1, 5 * 1024 * GIB, MOST_PARTS * 5 * GIB])
def test_the_parts_of_a_copy_cover_the_object_once(size):
    plan = copy_plan(size)

    ends = [offset + length for _, offset, length in plan]
    assert [number for number, _, _ in plan] == list(range(1, len(plan) + 1))
    assert [offset for _, offset, _ in plan] == [0, *ends[:-1]]
    assert ends[-1] == size
    assert len(plan) <= MOST_PARTS
    assert max(length for _, _, length in plan) <= 5 * GIB


def test_an_object_that_cannot_be_copied_is_too_large():
    with pytest.raises(ObjectTooLarge):
        copy_plan(MOST_PARTS * 5 * GIB + 1)
