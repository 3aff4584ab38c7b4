"""What can be asked of an OSS endpoint without a key: its name, its port, its certificate, its clock.

One unsigned request tells all of it: any HTTP answer means that the endpoint is reachable, and its Date header is the
clock that signatures are judged by.
"""

from __future__ import annotations

import email.utils
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from csi.cli.machine_checks import Finding, Level
from csi.volume.uri import Endpoint

_REFUSED_SKEW = 900.0
"""Seconds: OSS answers RequestTimeTooSkewed beyond 15 minutes."""
_LARGE_SKEW = 60.0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    server: str
    date: str
    seconds: float


def check_endpoint(endpoint: Endpoint, *, timeout: float, clock: Callable[[], float]) -> list[Finding]:
    """Reachability, and the clock if there is an answer. `clock` gives seconds since the epoch."""
    try:
        answer = _ask(endpoint, timeout)
    except socket.gaierror as error:
        return [_failed(endpoint, f"name not found: {error.strerror}", "check the spelling, the region and DNS")]
    except ssl.SSLCertVerificationError as error:
        fix = "install ca-certificates, or use the endpoint's own name; http:// does without TLS"
        return [_failed(endpoint, f"certificate not trusted: {error.verify_message}", fix)]
    except ssl.SSLError as error:
        return [_failed(endpoint, f"TLS failed: {error.reason}", "is this port plain HTTP? then write http://")]
    except TimeoutError:
        fix = "check routes and firewalls; an -internal endpoint answers only inside its region's VPC"
        return [_failed(endpoint, f"no answer within {timeout:g} s", fix)]
    except (OSError, http.client.HTTPException) as error:
        found = getattr(error, "strerror", None) or f"{type(error).__name__} {error}".strip()
        return [_failed(endpoint, found, "check address, port, proxies and firewalls")]
    found = f"HTTP {answer.status} from {answer.server or 'an unnamed server'} in {answer.seconds * 1000:.0f} ms"
    return [Finding(f"endpoint {endpoint.url}", Level.OK, found), _skew(answer.date, clock())]


def speaks_instead(endpoint: Endpoint, *, timeout: float) -> str:
    """The URL of the same host and port with the other of http and https, if that is what is spoken there; else ''."""
    other = replace(endpoint, scheme="https" if endpoint.scheme == "http" else "http")
    try:
        _ask(other, timeout)
    except ssl.SSLCertVerificationError:
        return other.url  # it is TLS, whoever it is
    except (OSError, http.client.HTTPException):
        return ""
    return other.url


def _ask(endpoint: Endpoint, timeout: float) -> _Answer:
    host = endpoint.host.strip("[]")
    port = int(endpoint.port) if endpoint.port else None
    connection: http.client.HTTPConnection
    if endpoint.scheme == "http":
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
    started = time.monotonic()
    try:
        connection.request("GET", "/", headers={"User-Agent": "ossfuse-doctor", "Connection": "close"})
        answer = connection.getresponse()
        seconds = time.monotonic() - started
        return _Answer(answer.status, answer.getheader("Server", ""), answer.getheader("Date", ""), seconds)
    finally:
        connection.close()


def _failed(endpoint: Endpoint, found: str, fix: str) -> Finding:
    return Finding(f"endpoint {endpoint.url}", Level.FAIL, found, fix)


def _skew(date: str, now: float) -> Finding:
    try:
        skew = now - email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return Finding("clock", Level.WARN, "the endpoint tells no time", "check that it is an OSS endpoint")
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the endpoint"
    if abs(skew) > _REFUSED_SKEW:
        return Finding("clock", Level.FAIL, f"{found}; OSS refuses over 15 minutes", "start chrony or ntpd")
    if abs(skew) > _LARGE_SKEW:
        return Finding("clock", Level.WARN, found, "start chrony or ntpd: OSS refuses over 15 minutes")
    return Finding("clock", Level.OK, found)
