"""`ossfuse emulator`: the OSS server for development, with the options of `python -m csi.emulator`."""

from __future__ import annotations

from pathlib import Path

import click

from csi.emulator.__main__ import parse_access_key, parse_role_subject, read_access_keys
from csi.emulator.server import EmulatorConfig, run


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Directory that holds everything; made if missing.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=18080, show_default=True, help="0 picks a free port.")
@click.option(
    "--access-key",
    multiple=True,
    metavar="ID:SECRET",
    help="May be repeated; everybody on the machine can see it, prefer --access-key-file.",
)
@click.option(
    "--access-key-file",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Lines of the form ID:SECRET; keeps secrets out of the process list.",
)
@click.option("--bucket", multiple=True, metavar="NAME", help="Exists from the start; may be repeated.")
@click.option("--public-bucket", multiple=True, metavar="NAME", help="Likewise, readable by anybody.")
@click.option(
    "--domain", multiple=True, default=("oss.local",), show_default=True, help="BUCKET.DOMAIN addresses a bucket."
)
@click.option("--region", default="cn-hangzhou", show_default=True, help="Region that signatures are made for.")
@click.option("--sts-path", default="/sts", show_default=True, help="Where AssumeRole is answered.")
@click.option(
    "--oidc-provider", default="", metavar="ARN", help="An OIDC provider whose tokens AssumeRoleWithOIDC takes."
)
@click.option("--oidc-issuer", default="", metavar="URL", help="Its issuer, as the cluster's tokens name it.")
@click.option(
    "--oidc-keys",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Its keys: a JSON Web Key Set (kubectl get --raw /openid/v1/jwks) or a PEM public key.",
)
@click.option(
    "--role-subject",
    multiple=True,
    metavar="ROLE_ARN=SUBJECT",
    help="The role trusts this subject (system:serviceaccount:NAMESPACE:NAME, * allowed) and no other; repeatable.",
)
@click.option("--admin-path", default="/_emulator", show_default=True, help="Faults and counters, for this machine.")
@click.option("--insecure-anonymous", is_flag=True, help="Unsigned requests may do everything.")
@click.option("--s3", is_flag=True, help="Also speak S3, unsigned and with everything allowed: for benchmarks.")
@click.option(
    "--bodies-left",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where a server in front leaves request bodies as files: for benchmarks.",
)
@click.option("--until-stdin-closes", is_flag=True, help="Stop when standard input ends.")
def command(
    data: Path,
    host: str,
    port: int,
    access_key: tuple[str, ...],
    access_key_file: tuple[Path, ...],
    bucket: tuple[str, ...],
    public_bucket: tuple[str, ...],
    domain: tuple[str, ...],
    region: str,
    sts_path: str,
    oidc_provider: str,
    oidc_issuer: str,
    oidc_keys: Path | None,
    role_subject: tuple[str, ...],
    admin_path: str,
    insecure_anonymous: bool,
    s3: bool,
    bodies_left: Path | None,
    until_stdin_closes: bool,
) -> None:
    """Run an OSS server for development: real signatures, files below --data.

    Prints `listening http://HOST:PORT` when it accepts connections and serves until SIGTERM or Ctrl-C.
    """
    pairs = [*access_key, *(pair for path in access_key_file for pair in read_access_keys(path))]
    config = EmulatorConfig(
        data=data,
        host=host,
        port=port,
        access_keys=tuple(parse_access_key(pair) for pair in pairs),
        buckets=bucket,
        public_buckets=public_bucket,
        domains=domain,
        region=region,
        sts_path=sts_path,
        admin_path=admin_path,
        oidc_provider=oidc_provider,
        oidc_issuer=oidc_issuer,
        oidc_keys=oidc_keys,
        role_subjects=tuple(parse_role_subject(pair) for pair in role_subject),
        anonymous_owner=insecure_anonymous,
        s3=s3,
        bodies_left=bodies_left,
        until_stdin_closes=until_stdin_closes,
    )
    run(config, announce=click.echo)
