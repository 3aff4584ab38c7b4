"""Every key of the option table does what its row says: sets something, says why it does not, or is refused."""

import re
from pathlib import Path

import pytest

from csi.errors import InvalidOption
from csi.volume.parse import parse_volume
from csi.volume.table.document import document
from csi.volume.table.option import Effect, Option
from csi.volume.table.options import TABLE, find, nearest

ROOT = Path(__file__).parents[4]
PLACE = {"uri": "oss://bkt/a", "url": "https://data.example.com"}
NAMED = [(row, name) for row in TABLE for name in row.names]

ROLE = {"roleArn": "acs:ram::1:role/training", "oidcProviderArn": "acs:ram::1:oidc-provider/ack-rrsa-c0ffee"}
EXAMPLES = {
    # an option, a text that is not its default, and what has to be there for it to be accepted
    "uri": ("oss://other/", {}),
    "bucket": ("bkt", {"uri": ""}),
    "url": ("https://other.example.com", {"url": ""}),
    "fs.oss.bucket.<NAME>.endpoint": ("https://other.example.com", {}),
    "path": ("/x", {"uri": "oss://bkt"}),
    "region": ("cn-beijing", {}),
    "mode": ("consistent", {}),
    "options": ('{"fs.oss.retry.count": 1}', {}),
    "fs.jindo.args": ("-oattr_timeout=9", {}),
    "otherOpts": ("-oattr_timeout=9", {}),
    "fs.jindo.fuse.pod.mem.limit": ("2Gi", {}),
    "fs.jindo.fuse.pod.mem.request": ("512Mi", {}),
    "fs.jindo.fuse.pod.cpu.request": ("2", {}),
    "fs.jindo.fuse.pod.cpu.limit": ("1500m", {}),
    "fs.jindo.fuse.pod.ephemeral.limit": ("1Gi", {}),
    "fs.jindo.fuse.pod.image.tag": ("6.7.0", {}),
    "fs.oss.read.buffer.size": ("262144", {}),
    "fs.oss.write.buffer.size": ("262144", {}),
    "fs.oss.read.readahead.buffer.size": ("1048576", {}),
    "fs.oss.append.enable": ("true", {}),
    "fs.oss.second.level.domain.enable": ("true", {}),
    "fs.oss.checksum.crc64.enable": ("false", {}),
    "fs.oss.checksum.md5.enable": ("true", {}),
    "fs.oss.server-side-encryption": ("AES256", {}),
    "fs.oss.server-side-data-encryption": ("SM4", {"fs.oss.server-side-encryption": "KMS"}),
    "fs.oss.server-side-encryption-key-id": ("9468da86-3509", {"encrypted": "kms"}),
    "fs.oss.signer.version": ("4", {}),
    "cache": ("emptyDir", {}),
    "cacheSize": ("20Gi", {"cache": "/var/cache/ossfuse"}),
    "authType": ("public", {}),
    "credentialFile": ("/keys.json", {"authType": "file"}),
    "roleArn": (f"{ROLE['roleArn']}-2", {"authType": "rrsa", **ROLE}),
    "oidcProviderArn": (f"{ROLE['oidcProviderArn']}-2", {"authType": "rrsa", **ROLE}),
    "serviceAccountName": ("trainer", {"authType": "rrsa", **ROLE}),
    "umask": ("077", {}),
    "fileMode": ("0600", {}),
    "dirMode": ("0700", {}),
}


@pytest.mark.parametrize(("row", "name"), NAMED, ids=[name for _, name in NAMED])
def test_every_key_has_its_effect_or_says_why_not(row: Option, name: str) -> None:
    key = name.replace("<NAME>", "bkt")
    text, needed = EXAMPLES.get(row.key, ("7", {}))
    without = {option: value for option, value in {**PLACE, **needed}.items() if value}
    if row.effect in (Effect.REFUSED, Effect.AT_CREATION):
        with pytest.raises(InvalidOption, match=re.escape(key)) as refusal:
            parse_volume({**without, key: "hunter2"}, cpu_count=4)
        assert refusal.value.hint == row.reason
        assert "hunter2" not in f"{refusal.value} {refusal.value!r} {refusal.value.value}"
        return
    parsed = parse_volume({**without, key: text}, cpu_count=4)
    if row.effect is Effect.NO_EFFECT:
        assert parsed.spec == parse_volume(without, cpu_count=4).spec
        assert f"{key}: accepted, no effect: {row.reason}" in parsed.warnings
        setting = next(setting for setting in parsed.settings if setting.key == key)
        assert setting.note == f"accepted, no effect: {row.reason}"
    elif row.key in ("bucket", "url"):
        with pytest.raises(InvalidOption):
            parse_volume(without, cpu_count=4)
    else:
        base = {**without, "authType": "public"} if row.key == "credentialFile" else without
        if row.key == "credentialFile":
            assert parsed.spec.credentials.credential_file == text
        else:
            assert parsed.spec != parse_volume(base, cpu_count=4).spec


def test_no_name_stands_for_two_options() -> None:
    names = [name for row in TABLE for name in row.names]
    assert len(names) == len(set(names))


def test_every_row_documents_itself_or_gives_a_reason() -> None:
    assert [
        row.key for row in TABLE if not (row.documentation if row.effect is Effect.IMPLEMENTED else row.reason)
    ] == []


@pytest.mark.parametrize(
    ("typo", "key"),
    [
        ("fs.oss.downlod.thread.concurrency", "fs.oss.download.thread.concurrency"),
        ("fs.jindo.fuse.pod.memory.limit", "fs.jindo.fuse.pod.mem.limit"),
        ("Bucket", "bucket"),
        ("fs.jindo.arg", "fs.jindo.args"),
        ("FS.OSS.RETRY.COUNT", "fs.oss.retry.count"),
        ("modes", "mode"),
        ("pathPatern", "pathPattern"),
        ("ondelete", "onDelete"),
    ],
)
def test_a_typo_is_refused_with_the_nearest_key(typo: str, key: str) -> None:
    with pytest.raises(InvalidOption, match=re.escape(typo)) as refusal:
        find(typo)
    assert refusal.value.hint == f"did you mean {key}?"
    assert refusal.value.key == typo


def test_a_key_like_no_other_is_pointed_to_the_documentation() -> None:
    with pytest.raises(InvalidOption, match=r"docs/options\.md") as refusal:
        find("x" * 100_000)
    assert len(str(refusal.value)) < 500
    assert nearest("") == ""


def test_the_documentation_is_what_the_table_says() -> None:
    written = (ROOT / "docs" / "options.md").read_text()
    assert written == document(), "docs/options.md is out of date: run `make docs`"


@pytest.mark.parametrize(("row", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_documentation_names_every_key(row: Option, name: str) -> None:
    assert f"`{name}`" in document()


def test_the_least_cpu_limit_is_told_and_documented_as_it_is_read() -> None:
    key = "fs.jindo.fuse.pod.cpu.limit"
    assert parse_volume({**PLACE, key: "500m"}, cpu_count=4).spec.resources.cpu_limit_millis == 500
    with pytest.raises(InvalidOption, match="at least 1m"):
        parse_volume({**PLACE, key: "0"}, cpu_count=4)
    assert f"| `{key}` | quantity, cores, at least 1m |" in document()
