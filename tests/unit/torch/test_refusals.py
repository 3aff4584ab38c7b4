"""Errors as PyTorch carries them: pickled, or raised again from their text alone."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator

import pytest

from csi.errors import BadHandle, InvalidOperation, InvalidOption, ObjectNotFound, OssFuseError
from csi.torch.refusals import FileClosed, IndexUnsupported, StreamUnsupported


def every_class(base: type[OssFuseError]) -> Iterator[type[OssFuseError]]:
    yield base
    for kind in base.__subclasses__():
        if kind.__module__ in ("csi.errors", "csi.torch.refusals"):
            yield from every_class(kind)


CLASSES = sorted(set(every_class(OssFuseError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_is_made_of_its_text_alone(kind: type[OssFuseError]) -> None:
    """As `torch._utils.ExceptionWrapper` does with the error of a worker; where that fails it is a RuntimeError."""
    error = kind("Caught it in DataLoader worker process 0.")
    assert str(error) == "Caught it in DataLoader worker process 0."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_pickles_with_all_its_fields(kind: type[OssFuseError]) -> None:
    error = kind("what failed", hint="what to do")
    error.__dict__["more"] = ("a", 1)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.__dict__, again.args) == (error.__dict__, error.args)


def test_the_fields_of_an_option_and_of_an_answer_are_kept() -> None:
    option = pickle.loads(pickle.dumps(InvalidOption("rank", 7, "0 or 1", hint="count from 0")))
    assert (option.key, option.value, option.hint) == ("rank", 7, "count from 0")
    answer = pickle.loads(pickle.dumps(ObjectNotFound("none", status=404, request_id="5C3D", key="a/b")))
    assert (answer.status, answer.request_id, answer.key) == (404, "5C3D", "a/b")


@pytest.mark.parametrize(
    ("kind", "ours", "pythons"),
    [
        (FileClosed, BadHandle, ValueError),
        (StreamUnsupported, InvalidOperation, io.UnsupportedOperation),
        (IndexUnsupported, InvalidOperation, TypeError),
    ],
)
def test_a_refusal_is_also_that_of_python(
    kind: type[OssFuseError], ours: type[Exception], pythons: type[Exception]
) -> None:
    error = kind("no", hint="yes")
    assert isinstance(error, ours)
    assert isinstance(error, pythons)
    assert str(error) == "no; yes"
