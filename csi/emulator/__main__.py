"""`python -m csi.emulator`: the command line of the emulator."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from csi.emulator.server import EmulatorConfig, run
from csi.errors import OssFuseError


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        run(_config(options), announce=_announce)
    except OssFuseError as error:
        print(f"emulator: {error}", file=sys.stderr)
        return 1
    return 0


def parse_access_key(pair: str) -> tuple[str, str]:
    """`ID:SECRET`; raises OssFuseError when one half is missing. The error names no secret."""
    access_key_id, _, secret = pair.partition(":")
    if not access_key_id or not secret:
        raise OssFuseError("an access key has the form ID:SECRET; one half is missing", hint="check --access-key")
    return access_key_id, secret


def parse_role_subject(pair: str) -> tuple[str, str]:
    """`ROLE_ARN=SUBJECT`; raises OssFuseError when one half is missing."""
    role, _, subject = pair.partition("=")
    if not role or not subject:
        raise OssFuseError(f"{pair!r} is not of the form ROLE_ARN=SUBJECT", hint="check --role-subject")
    return role, subject


def read_access_keys(path: Path) -> list[str]:
    """The lines ID:SECRET of a file; raises OssFuseError when it cannot be read."""
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise OssFuseError(f"{path}: {error.strerror}", hint="check --access-key-file") from error


def _config(options: argparse.Namespace) -> EmulatorConfig:
    keys = [*options.access_key, *(key for path in options.access_key_file for key in read_access_keys(path))]
    return EmulatorConfig(
        data=options.data,
        host=options.host,
        port=options.port,
        access_keys=tuple(parse_access_key(pair) for pair in keys),
        buckets=tuple(options.bucket),
        public_buckets=tuple(options.public_bucket),
        domains=tuple(options.domain) or ("oss.local",),
        region=options.region,
        sts_path=options.sts_path,
        admin_path=options.admin_path,
        oidc_provider=options.oidc_provider,
        oidc_issuer=options.oidc_issuer,
        oidc_keys=options.oidc_keys,
        role_subjects=tuple(parse_role_subject(pair) for pair in options.role_subject),
        anonymous_owner=options.insecure_anonymous,
        s3=options.s3,
        bodies_left=options.bodies_left,
        until_stdin_closes=options.until_stdin_closes,
    )


def _announce(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m csi.emulator", description="An OSS server for development.")
    parser.add_argument("--data", type=Path, required=True, help="directory that holds everything; made if missing")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=18080, help="0 picks a free port")
    parser.add_argument(
        "--access-key",
        action="append",
        default=[],
        metavar="ID:SECRET",
        help="may be repeated; everybody on the machine can see it, prefer --access-key-file",
    )
    parser.add_argument(
        "--access-key-file",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="lines of the form ID:SECRET; keeps secrets out of the process list",
    )
    parser.add_argument("--bucket", action="append", default=[], help="exists from the start; may be repeated")
    parser.add_argument("--public-bucket", action="append", default=[], help="likewise, readable by anybody")
    parser.add_argument("--domain", action="append", default=[], help="BUCKET.DOMAIN addresses a bucket (oss.local)")
    parser.add_argument("--region", default="cn-hangzhou")
    parser.add_argument("--sts-path", default="/sts", help="where AssumeRole is answered")
    parser.add_argument("--oidc-provider", default="", metavar="ARN", help="a provider AssumeRoleWithOIDC trusts")
    parser.add_argument("--oidc-issuer", default="", metavar="URL", help="its issuer, as tokens name it")
    parser.add_argument("--oidc-keys", type=Path, metavar="FILE", help="its keys: a JSON Web Key Set or a PEM key")
    parser.add_argument(
        "--role-subject",
        action="append",
        default=[],
        metavar="ROLE_ARN=SUBJECT",
        help="the role trusts this subject (* allowed) and no other; may be repeated",
    )
    parser.add_argument("--admin-path", default="/_emulator", help="where faults and counters are, for this machine")
    parser.add_argument("--insecure-anonymous", action="store_true", help="unsigned requests may do everything")
    parser.add_argument("--s3", action="store_true", help="also speak S3, unsigned, everything allowed (benchmarks)")
    parser.add_argument(
        "--bodies-left", type=Path, metavar="DIR", help="where a server in front leaves bodies as files (benchmarks)"
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when standard input ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
