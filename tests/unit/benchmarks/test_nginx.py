"""What the log of the server says: requests by kind, in either protocol, and the bytes that were sent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.nginx import Line, configuration, count, kind_of


@pytest.mark.parametrize(
    ("method", "uri", "kind"),
    [
        ("GET", "/bench/small/000001", "GET"),
        ("GET", "/bench/small/000001?x-id=GetObject", "GET"),
        ("GET", "/bench/?list-type=2&prefix=small%2F", "LIST"),
        ("GET", "/bench?prefix=small/&delimiter=/", "LIST"),
        ("GET", "/bench?location", "other"),
        ("GET", "/", "other"),
        ("HEAD", "/bench/small/000001?objectMeta", "HEAD"),
        ("POST", "/bench/key?uploads", "POST"),
    ],
)
def test_a_request_line_says_what_it_asks(method: str, uri: str, kind: str) -> None:
    assert kind_of(method, uri) == kind


def test_refused_requests_are_counted_apart_and_only_bodies_of_objects_are_bytes() -> None:
    lines = [
        "GET 206 4096 /bench/large/object",
        "GET 200 100 /bench/small/000001",
        "GET 416 200 /bench/small/000001",
        "GET 200 9000 /bench?list-type=2",
        "HEAD 404 0 /bench/x",
        "a line cut sh",
    ]
    assert count(lines[:2] + lines[3:]) == ({"GET": 2, "LIST": 1, "HEAD 404": 1, "objects": 2}, 4196)
    assert count(lines)[0]["GET 416"] == 1


def test_only_the_lines_with_latency_wait() -> None:
    text = configuration(Path("/s"), Path("/w"), Path("/b"), 1, {Line(0): 10, Line(20, rate=1000): 11})
    quick, slow = text.split("server {")[1:][-2:]
    assert "sleep" not in quick
    assert "limit_rate" not in quick
    assert slow.count("ngx.sleep(0.02)") == 2
    assert slow.count("limit_rate 1000;") == 2


def test_a_bucket_in_the_name_of_the_host_is_part_of_the_path_and_of_the_log() -> None:
    text = configuration(Path("/s"), Path("/w"), Path("/b"), 1, {Line(): 10})
    pattern = text.partition("map $host $bucket_before {")[2].partition('"~')[2].partition('"')[0].replace("?<", "?P<")
    assert re.match(pattern, "bench.oss.local")
    assert not re.match(pattern, "127.0.0.1")
    assert not re.match(pattern, "oss.local")
    assert "root /w$bucket_before;" in text
    assert "$bucket_before$request_uri';" in text


def test_an_upload_may_rest_for_minutes() -> None:
    """nginx's own 60 s ended a save of 4 GiB by osstorchconnector."""
    text = configuration(Path("/s"), Path("/w"), Path("/b"), 1, {Line(): 10})
    (seconds,) = re.findall(r"client_body_timeout (\d+)s;", text)
    assert int(seconds) >= 300
