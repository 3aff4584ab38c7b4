"""Messages of the shared rooms in the words of `ossfuse mount`."""

from pathlib import Path

import pytest

from csi.cli.words import PHRASES, errors_on_a_host, on_a_host
from csi.errors import InvalidOption, OssFuseError

ROOT = Path(__file__).parents[3] / "csi"
SAID_IN = ("handover", "volume")
SOURCES = "\n".join(path.read_text() for room in SAID_IN for path in sorted((ROOT / room).rglob("*.py")))


@pytest.mark.parametrize("said", [said for said, _ in PHRASES])
def test_a_phrase_that_is_put_in_other_words_is_still_said_somewhere(said: str) -> None:
    assert said in SOURCES


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "its sidecar was killed for memory: raise fs.jindo.fuse.pod.mem.limit and restart the pod",
            "its sidecar was killed for memory: mount it again with a larger --memory",
        ),
        ("it ended; restart the pod to mount it again", "it ended; another one is started"),
        ("at most 1Gi, the value of fs.jindo.fuse.pod.mem.limit", "at most 1Gi, the value of --memory"),
        ("mountOptions: '-ofoo' is not accepted", "-o: '-ofoo' is not accepted"),
        ("oss://bkt/a is a bucket", "oss://bkt/a is a bucket"),
    ],
)
def test_words_of_a_cluster_become_those_of_a_host(said: str, meant: str) -> None:
    assert on_a_host(said) == meant


def test_an_error_keeps_its_kind_and_changes_its_words() -> None:
    with pytest.raises(InvalidOption) as raised, errors_on_a_host():
        raise InvalidOption("mountOptions", "x", "an argument", hint="restart the pod")
    assert str(raised.value) == "-o: 'x' is not accepted, expected an argument; mount it again"
    assert isinstance(raised.value, OssFuseError)
