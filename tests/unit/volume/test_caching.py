"""`cache` and `cacheSize`: what is accepted, what is meant by what is not, and which host paths are allowed."""

import pytest

from csi.errors import InvalidOption
from csi.volume.caching import is_allowed, refusal
from csi.volume.parse import ParsedVolume, parse_volume
from csi.volume.spec import CacheOptions
from csi.volume.units import GIB, MIB, Bytes


def parse(**attributes: str) -> ParsedVolume:
    return parse_volume({"uri": "oss://bkt.oss-cn-hangzhou.aliyuncs.com/", **attributes}, cpu_count=4)


def test_without_the_option_there_is_no_cache() -> None:
    assert parse().spec.cache == CacheOptions("none", Bytes(10 * GIB))
    assert parse().spec.cache.host_path == ""


@pytest.mark.parametrize(
    ("text", "place", "host_path"),
    [
        ("none", "none", ""),
        ("emptyDir", "emptyDir", ""),
        ("EmptyDir", "emptyDir", ""),
        ("/var/cache/ossfuse", "/var/cache/ossfuse", "/var/cache/ossfuse"),
        ("//var/cache//ossfuse/./a/", "/var/cache/ossfuse/a", "/var/cache/ossfuse/a"),
    ],
)
def test_a_place_is_read_as_it_is_meant(text: str, place: str, host_path: str) -> None:
    cache = parse(cache=text).spec.cache
    assert (cache.place, cache.host_path) == (place, host_path)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("emptydirs", "did you mean emptyDir?"),
        ("true", "did you mean emptyDir?"),
        ("non", "did you mean none?"),
        ("hostPath", "did you mean /var/cache/ossfuse?"),
        ("var/cache", "did you mean /var/cache?"),
        ("/", ""),
        ("/var/../etc", ""),
        ("/var/ca\nche", ""),
        ("/" + "x" * 2000, ""),
        ("disk", ""),
    ],
)
def test_anything_else_is_refused_with_what_was_probably_meant(text: str, hint: str) -> None:
    with pytest.raises(InvalidOption, match="cache: ") as refused:
        parse(cache=text)
    assert refused.value.hint == hint


def test_a_size_is_a_quantity_of_64_mebibytes_at_least() -> None:
    assert parse(cache="emptyDir", cacheSize="64Mi").spec.cache.size == 64 * MIB
    with pytest.raises(InvalidOption, match=r"cacheSize: '63Mi' is not accepted, expected at least 64Mi"):
        parse(cache="emptyDir", cacheSize="63Mi")
    with pytest.raises(InvalidOption, match="cacheSize"):
        parse(cache="emptyDir", cacheSize="lots")


def test_a_size_without_a_cache_is_said_to_have_no_effect() -> None:
    assert "cacheSize: no effect without cache" in parse(cacheSize="1Gi").warnings
    assert parse(cache="emptyDir", cacheSize="1Gi").warnings == ()


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/a/b", True), ("/a/b/c", True), ("/a/bc", False), ("/a", False), ("/b", False), ("/x/y/z", True)],
)
def test_a_host_path_is_allowed_below_a_prefix(path: str, allowed: bool) -> None:
    assert is_allowed(path, ("/a/b", "/x")) is allowed
    assert not is_allowed(path, ())


def test_a_refusal_says_what_is_allowed_or_whom_to_ask() -> None:
    assert "use a path below /a or /b, or cache: emptyDir" in str(refusal("/etc", ("/a", "/b")))
    assert "cache.allowedHostPaths" in str(refusal("/etc", ()))
