import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi.errors import InvalidOption, UnsupportedVolume
from csi.volume.parse import ParsedVolume, parse_volume
from csi.volume.spec import AuthType, CachePolicy, CredentialOptions, Location, Mode, MountArguments, Ownership
from csi.volume.table.options import TABLE
from csi.volume.units import GIB, KIB, MIB

PLACE = {"uri": "oss://bkt.oss-cn-hangzhou-internal.aliyuncs.com/data/"}
READ_WRITE = MountArguments(attr_timeout=3.0, entry_timeout=0.0, negative_timeout=0.0, symlinks=False)


def parse(attributes: dict[str, str] | None = None, **rest: object) -> ParsedVolume:
    return parse_volume({**PLACE, **(attributes or {})}, cpu_count=4, **rest)  # type: ignore[arg-type]


def in_options(**options: object) -> dict[str, str]:
    return {"options": json.dumps(options)}


def origin(parsed: ParsedVolume, key: str) -> tuple[str, str]:
    return next((setting.value, setting.origin) for setting in parsed.settings if setting.key == key)


# --- modes ---


@pytest.mark.parametrize(
    ("mode", "arguments", "download", "upload"),
    [
        ("fast", READ_WRITE, 8, 8),
        ("incremental", READ_WRITE, 16, 8),
        ("consistent", replace(READ_WRITE, attr_timeout=0.0), 16, 16),
        (
            "readonly",
            MountArguments(7200.0, 7200.0, 7200.0, cache=CachePolicy.KERNEL, read_only=True, symlinks=False),
            8,
            16,
        ),
        ("custom", MountArguments(), 16, 16),
    ],
)
def test_a_mode_alone_gives_its_threads_and_arguments(
    mode: str, arguments: MountArguments, download: int, upload: int
) -> None:
    spec = parse({"mode": mode}).spec
    assert (spec.arguments, spec.read.threads, spec.write.threads) == (arguments, download, upload)


def test_without_a_mode_a_volume_is_fast_and_sized_for_one_gibibyte() -> None:
    spec = parse().spec
    assert spec.mode is Mode.FAST
    assert spec.location == Location("bkt", "https://oss-cn-hangzhou-internal.aliyuncs.com", "data/", "cn-hangzhou")
    assert (spec.read.readahead_count, spec.read.readahead_size) == (64, 4 * MIB)
    assert (spec.resources.memory_limit, spec.resources.memory_request) == (GIB, GIB)
    assert spec.resources.cpu_request_millis == 100
    assert spec.resources.cpu_limit_millis is None
    assert spec.credentials.auth_type is AuthType.SECRET


def test_on_a_large_node_the_default_threads_follow_its_processors() -> None:
    spec = parse_volume({**PLACE, "mode": "incremental"}, cpu_count=64).spec
    assert (spec.read.threads, spec.write.threads) == (64, 128)


# --- the option sets that the PAI guide prints ---

ZEROS = "-oattr_timeout=0 -oentry_timeout=0 -onegative_timeout=0"


@pytest.mark.parametrize("text", [ZEROS, "-oattr_timeout=0-oentry_timeout=0-onegative_timeout=0"])
def test_guide_turning_the_metadata_cache_off(text: str) -> None:
    parsed = parse(in_options(**{"mountPath": "/mnt/data/", "fs.jindo.args": text}))
    assert parsed.spec.arguments == replace(READ_WRITE, attr_timeout=0.0)
    assert origin(parsed, "-oattr_timeout") == ("0", "fs.jindo.args")
    assert origin(parsed, "-ono_symlink") == ("true", "mode fast")


def test_guide_ossfs_arguments_printed_with_commas() -> None:
    spec = parse(in_options(**{"fs.jindo.args": "-oattr_timeout=3, -onegative_timeout=0"})).spec
    assert (spec.arguments.attr_timeout, spec.arguments.negative_timeout) == (3.0, 0.0)


@pytest.mark.parametrize("count", [32, 64])
def test_guide_adjusting_the_number_of_threads(count: int) -> None:
    spec = parse(
        in_options(
            **{
                "fs.oss.upload.thread.concurrency": 32,
                "fs.oss.download.thread.concurrency": 32,
                "fs.oss.read.readahead.buffer.count": count,
                "fs.oss.read.readahead.buffer.size": 4194304,
            }
        )
    ).spec
    assert (spec.write.threads, spec.read.threads) == (32, 32)
    assert (spec.read.readahead_count, spec.read.readahead_size) == (count, 4 * MIB)


def test_guide_creating_files_with_append_object() -> None:
    spec = parse(
        in_options(
            **{
                "fs.jindo.args": ZEROS,
                "fs.oss.append.enable": "true",
                "fs.oss.flush.interval.millisecond": "1000",
                "fs.oss.read.buffer.size": "262144",
                "fs.oss.write.buffer.size": "262144",
            }
        )
    ).spec
    assert (spec.write.append, spec.write.flush_interval) == (True, 1.0)
    assert (spec.read.buffer_size, spec.write.buffer_size) == (256 * KIB, 256 * KIB)


HDFS_OPTIONS = {
    "mountPath": "/mnt/data/",
    "fs.jindo.args": f"{ZEROS} -ono_symlink -ono_xattr -ono_flock -odirect_io",
    "fs.oss.flush.interval.millisecond": "10000",
    "fs.oss.randomwrite.sync.interval.millisecond": "10000",
}


def test_guide_mounting_oss_hdfs_is_refused_with_the_reason() -> None:
    with pytest.raises(UnsupportedVolume, match="OSS-HDFS"):
        parse_volume({"uri": "oss://bkt.cn-hangzhou.oss-dls.aliyuncs.com/", **in_options(**HDFS_OPTIONS)}, cpu_count=4)


def test_guide_options_of_oss_hdfs_are_read_on_a_plain_bucket() -> None:
    spec = parse({"mode": "custom", **in_options(**HDFS_OPTIONS)}).spec
    assert spec.arguments == MountArguments(
        0.0, 0.0, 0.0, cache=CachePolicy.DIRECT, symlinks=False, xattrs=False, flock=False
    )


def test_guide_adjusting_the_memory() -> None:
    assert parse(in_options(**{"fs.jindo.fuse.pod.mem.limit": "10Gi"})).spec.resources.memory_limit == 10 * GIB


# --- precedence ---


def test_an_attribute_wins_over_an_argument_over_the_json_over_the_mode() -> None:
    key = "fs.oss.upload.thread.concurrency"
    args = {"fs.jindo.args": f"-o{key}=30"}
    assert origin(parse(), key) == ("8", "mode fast")
    assert origin(parse(in_options(**{key: 20})), key) == ("20", "options JSON")
    assert origin(parse({**in_options(**{key: 20}), **args}), key) == ("30", "fs.jindo.args")
    parsed = parse({**in_options(**{key: 20}), **args, key: "40"})
    assert origin(parsed, key) == ("40", "attribute")
    assert f"{key}: '40' (attribute) wins over '30' (fs.jindo.args)" in parsed.warnings


def test_the_same_value_twice_is_no_warning() -> None:
    assert parse({**in_options(**{"fs.oss.retry.count": 3}), "fs.oss.retry.count": "3"}).warnings == ()


def test_a_mode_may_stand_in_the_json() -> None:
    assert parse(in_options(mode="ReadOnly")).spec.mode is Mode.READONLY


def test_mount_options_win_over_arguments_and_those_over_other_opts() -> None:
    parsed = parse(
        {
            "otherOpts": "-o umask=022 -o max_stat_cache_size=0 -o allow_other -oattr_timeout=1,entry_timeout=1",
            "fs.jindo.args": "-oattr_timeout=2",
        },
        mount_flags=["negative_timeout=3"],
    )
    assert origin(parsed, "-oattr_timeout") == ("2", "fs.jindo.args")
    assert origin(parsed, "-oentry_timeout") == ("1", "otherOpts")
    assert origin(parsed, "-onegative_timeout") == ("3", "mountOptions")
    assert any("max_stat_cache_size: accepted, no effect" in warning for warning in parsed.warnings)
    assert "-oattr_timeout=2 (fs.jindo.args) wins over -oattr_timeout=1 (otherOpts)" in parsed.warnings


def test_two_names_of_one_option_must_agree() -> None:
    same = {"fs.oss.region": "cn-beijing", "region": "cn-beijing"}
    assert parse(same).spec.location.region == "cn-beijing"
    with pytest.raises(InvalidOption, match="contradicts"):
        parse({**same, "region": "cn-hangzhou"})


# --- read-only ---


def test_read_only_access_makes_any_volume_read_only() -> None:
    parsed = parse(read_only=True)
    assert parsed.spec.arguments.read_only
    assert parsed.read_only_origin == "read-only access"


@pytest.mark.parametrize(
    ("attributes", "flags", "asked_by"),
    [
        ({}, [], ""),
        ({"mode": "readonly"}, [], "mode readonly"),
        ({"fs.jindo.args": "-oro"}, [], "fs.jindo.args"),
        ({"otherOpts": "-o ro"}, [], "otherOpts"),
        ({}, ["ro"], "mountOptions"),
        ({"fs.jindo.args": "-orw"}, [], ""),
    ],
)
def test_who_asked_for_read_only_is_told(attributes: dict[str, str], flags: list[str], asked_by: str) -> None:
    parsed = parse(attributes, mount_flags=flags)
    assert parsed.read_only_origin == asked_by
    assert parsed.spec.arguments.read_only == bool(asked_by)


def test_a_writing_argument_contradicts_a_read_only_mode() -> None:
    with pytest.raises(InvalidOption, match="-orw contradicts -oro of mode readonly"):
        parse({"mode": "readonly", "fs.jindo.args": "-orw"})


# --- memory ---


@pytest.mark.parametrize("limit", ["127Mi", "0", "100M", "1"])
def test_a_memory_limit_below_the_floor_is_refused_with_key_value_and_floor(limit: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        parse({"fs.jindo.fuse.pod.mem.limit": limit})
    assert "fs.jindo.fuse.pod.mem.limit" in str(refusal.value)
    assert "at least 128Mi" in str(refusal.value)


@pytest.mark.parametrize(
    ("limit", "count", "size"),
    [("1Gi", 64, 4 * MIB), ("512Mi", 32, 4 * MIB), ("256Mi", 16, 4 * MIB), ("128Mi", 8, 4 * MIB)],
)
def test_the_window_is_cut_to_a_quarter_of_the_memory_limit(limit: str, count: int, size: int) -> None:
    parsed = parse({"fs.jindo.fuse.pod.mem.limit": limit})
    assert (parsed.spec.read.readahead_count, parsed.spec.read.readahead_size) == (count, size)


def test_cutting_what_was_asked_for_is_told() -> None:
    parsed = parse(
        {
            "fs.jindo.fuse.pod.mem.limit": "256Mi",
            "fs.oss.read.readahead.buffer.size": "1Gi",
            "fs.oss.read.readahead.buffer.count": "10",
            "fs.oss.blocklet.size.mb": "1024",
        }
    )
    assert (parsed.spec.read.readahead_size, parsed.spec.read.readahead_count) == (64 * MIB, 1)
    assert parsed.spec.write.part_size == 64 * MIB
    assert [warning.split(":")[0] for warning in parsed.warnings] == [
        "fs.oss.read.readahead.buffer.count",
        "fs.oss.read.readahead.buffer.size",
        "fs.oss.blocklet.size.mb",
    ]


def test_the_default_window_is_cut_with_a_note_and_no_warning() -> None:
    parsed = parse({"fs.jindo.fuse.pod.mem.limit": "256Mi"})
    note = next(setting.note for setting in parsed.settings if setting.key == "fs.oss.read.readahead.buffer.count")
    assert "a quarter of the memory limit 256Mi" in note
    assert parsed.warnings == ()


# --- ownership ---


@pytest.mark.parametrize(
    ("attributes", "group", "expected"),
    [
        ({}, None, Ownership(0, 0, 0o644, 0o755)),
        ({"uid": "1000", "gid": "100", "umask": "0077"}, None, Ownership(1000, 100, 0o600, 0o700)),
        ({"fs.jindo.args": "-ouid=5 -ogid=6 -oumask=027"}, None, Ownership(5, 6, 0o640, 0o750)),
        ({"fs.jindo.args": "-ofmask=0133 -odmask=0022"}, None, Ownership(0, 0, 0o644, 0o755)),
        ({"umask": "077", "fileMode": "0444", "dirMode": "555"}, None, Ownership(0, 0, 0o444, 0o555)),
        ({}, 2000, Ownership(0, 2000, 0o664, 0o775)),
        ({"gid": "100", "umask": "0022"}, 2000, Ownership(0, 2000, 0o644, 0o755)),
        ({"uid": "1000", "fs.jindo.args": "-ouid=5"}, None, Ownership(1000, 0, 0o644, 0o755)),
    ],
)
def test_who_owns_what_the_mount_shows(attributes: dict[str, str], group: int | None, expected: Ownership) -> None:
    assert parse(attributes, mount_group=group).spec.ownership == expected


def test_an_overruled_owner_is_told() -> None:
    assert parse({"gid": "100"}, mount_group=2000).warnings == ("the pod's fsGroup 2000 wins over gid 100",)
    assert parse({"uid": "1", "fs.jindo.args": "-ouid=5"}).warnings == (
        "uid (attribute) wins over -ouid=5 (fs.jindo.args)",
    )


# --- requests, encryption, credentials ---


@pytest.mark.parametrize(
    ("attributes", "version"),
    [
        ({}, 4),
        ({"fs.oss.signer.version": "0"}, 4),
        ({"fs.oss.signer.version": "1"}, 1),
        ({"sigVersion": "v1"}, 1),
        ({"uri": "oss://bkt/", "url": "http://127.0.0.1:18080"}, 1),
        ({"uri": "oss://bkt/", "url": "http://127.0.0.1:18080", "sigVersion": "v4"}, 4),
        ({"uri": "oss://bkt/", "url": "http://127.0.0.1:18080", "region": "cn-hangzhou"}, 4),
    ],
)
def test_the_signature_version_follows_the_region_unless_given(attributes: dict[str, str], version: int) -> None:
    assert parse(attributes).spec.http.signature_version == version


@pytest.mark.parametrize(("timeout", "deadline"), [("1000", 60.0), ("30000", 60.0), ("120000", 240.0)])
def test_an_operation_may_take_two_long_tries(timeout: str, deadline: float) -> None:
    assert parse({"fs.oss.timeout.millisecond": timeout}).spec.http.deadline == deadline


def test_an_endpoint_of_this_bucket_wins_over_the_general_one() -> None:
    attributes = {
        "uri": "oss://bkt/",
        "url": "http://a.example.com",
        "fs.oss.bucket.bkt.endpoint": "http://b.example.com",
        "fs.oss.bucket.other.endpoint": "http://c.example.com",
    }
    parsed = parse(attributes)
    assert parsed.spec.location.endpoint == "http://b.example.com"
    assert any(warning.startswith("fs.oss.bucket.other.endpoint: accepted, no effect") for warning in parsed.warnings)


def test_keys_of_kubernetes_are_not_options() -> None:
    context = {"csi.storage.k8s.io/pod.name": "p", "storage.kubernetes.io/csiProvisionerIdentity": "1-ossfuse.csi.dev"}
    assert parse(context) == parse()


def test_a_flush_interval_without_append_says_that_it_waits_for_it() -> None:
    parsed = parse({"fs.oss.flush.interval.millisecond": "1000"})
    assert parsed.warnings == ("fs.oss.flush.interval.millisecond: no effect without fs.oss.append.enable: true",)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"fs.oss.retry.count": "many"}, "fs.oss.retry.count: 'many' is not accepted, expected an integer"),
        ({"fs.oss.retry.count": ""}, "fs.oss.retry.count: ''"),
        ({"fs.oss.retry.count": "-1"}, "from 0 to 1000"),
        ({"fs.oss.download.thread.concurrency": "0"}, "from 1 to 1024"),
        ({"fs.oss.download.thread.concurrency": "1e3"}, "'1e3'"),
        ({"fs.oss.read.buffer.size": "1000"}, "at least 65536"),
        ({"fs.oss.read.buffer.size": "-1"}, "zero or more"),
        ({"fs.oss.append.enable": "ture"}, "did you mean true?"),
        ({"fs.oss.append.enable": "yes"}, "expected true or false"),
        ({"fs.oss.flush.interval.millisecond": "0"}, "-1, or 1 and more"),
        ({"fs.oss.blocklet.size.mb": "8Mi"}, "fs.oss.blocklet.size.mb"),
        ({"fs.oss.signer.version": "2"}, "fs.oss.signer.version"),
        ({"encrypted": "rot13"}, "encrypted: 'rot13'"),
        ({"kmsKeyId": "abc"}, "set fs.oss.server-side-encryption: KMS"),
        ({"fs.jindo.fuse.pod.mem.limit": "10GB"}, "fs.jindo.fuse.pod.mem.limit: '10GB'"),
        ({"fs.jindo.fuse.pod.mem.request": "2Gi"}, "at most 1Gi"),
        ({"fs.jindo.fuse.pod.cpu.request": "2", "fs.jindo.fuse.pod.cpu.limit": "1"}, "at most 1000m"),
        ({"fs.jindo.fuse.pod.cpu.limit": "0"}, "fs.jindo.fuse.pod.cpu.limit"),
        ({"fs.jindo.fuse.pod.image.tag": "a/b:c"}, "an image tag"),
        ({"mode": ""}, "mode: ''"),
        ({"umask": "9"}, "umask: '9'"),
        ({"fileMode": "01777"}, "0777"),
        ({"uid": "root"}, "uid: 'root'"),
        ({"gid": "4294967295"}, "4294967294"),
        ({"authType": "csi-secret-store"}, "authType: 'csi-secret-store'"),
        ({"authType": "file"}, "credentialFile: ''"),
        ({"authType": "file", "credentialFile": "keys.json"}, "an absolute path"),
        ({"credentialFile": "/keys.json"}, "set authType: file"),
        ({"region": "cn-hangzhou\n"}, "did you mean cn-hangzhou?"),
        ({"fs.oss.foo": "1"}, "'fs.oss.foo': there is no such option"),
        ({"options": "{"}, "options: this is not JSON"),
        ({"options": "[]"}, "options: expected a JSON object"),
        ({"options": '"text"'}, "options: expected a JSON object"),
        ({"options": "[" * 20_000}, "options: this is not JSON"),
        ({"options": '{"fs.oss.retry.count": [1]}'}, "'fs.oss.retry.count' holds no single value"),
        ({"options": '{"fs.oss.retry.count": {"a": 1}}'}, "'fs.oss.retry.count' holds no single value"),
        ({"options": '{"fs.oss.retry.count": NaN}'}, "'fs.oss.retry.count' holds no single value"),
        ({"options": '{"fs.oss.retry.count": 1, "fs.oss.retry.count": 2}'}, "twice"),
        ({"options": '{"options": "{}"}'}, "cannot hold another"),
        ({"options": '{"fs.oss.retry.count": 1.5}'}, "'1.5'"),
        ({"options": '{"fs.oss.foo": 1}'}, "'fs.oss.foo': there is no such option"),
        ({"fs.jindo.args": "-omode=fast"}, "there is no argument"),
        ({"fs.jindo.args": "-ofs.jindo.args=-oro"}, "fs.jindo.args"),
        ({"fs.jindo.args": "-ofs.oss.foo=1"}, "'fs.oss.foo'"),
        ({"x" * 70_000: "1"}, "volumeAttributes: '70"),
        ({"options": " " * 1_000_000}, "at most 65536 bytes"),
    ],
)
def test_bad_input_names_the_key_the_value_and_what_is_accepted(attributes: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        parse(attributes)
    assert said in str(refusal.value)
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("value", [5, None, True, {"a": 1}])
def test_a_value_that_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidOption, match="only strings"):
        parse({"fs.oss.retry.count": value})  # type: ignore[dict-item]


def test_numbers_and_booleans_in_the_json_are_as_good_as_text() -> None:
    spec = parse(in_options(**{"fs.oss.retry.count": 7.0, "fs.oss.append.enable": True, "region": None})).spec
    assert (spec.http.retries, spec.write.append) == (7, True)


ROLE = {"roleArn": "acs:ram::1:role/training", "oidcProviderArn": "acs:ram::1:oidc-provider/ack-rrsa-c0ffee"}


def test_a_volume_can_take_on_a_role_with_the_pods_service_account() -> None:
    credentials = parse({"authType": "RRSA", "serviceAccountName": "trainer", **ROLE}).spec.credentials

    assert credentials == CredentialOptions(
        AuthType.RRSA,
        role_arn=ROLE["roleArn"],
        oidc_provider_arn=ROLE["oidcProviderArn"],
        service_account_name="trainer",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"roleArn": ""},
            r"roleArn: '' is not accepted, expected a role such as acs:ram::.*, because authType is rrsa",
        ),
        ({"roleArn": "training"}, "roleArn: 'training' is not accepted"),
        ({"roleArn": ROLE["oidcProviderArn"]}, "roleArn"),
        ({"oidcProviderArn": ""}, "oidcProviderArn: '' is not accepted, expected a provider such as acs:ram::"),
        ({"oidcProviderArn": "https://issuer"}, "oidcProviderArn: 'https://issuer'"),
        ({"serviceAccountName": "Trainer!"}, "serviceAccountName: 'Trainer!'"),
        ({"authType": "secret"}, "roleArn: .* only together with authType: rrsa; set authType: rrsa"),
        ({"authType": ""}, "only together with authType: rrsa"),
    ],
)
def test_a_role_that_cannot_be_taken_on_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        parse({"authType": "rrsa", **ROLE, **changes})


@pytest.mark.parametrize(
    "attributes",
    [
        {"fs.oss.accessKeySecret": "hunter2"},
        {"akSecret": "hunter2"},
        {"options": '{"fs.oss.accessKeySecret": "hunter2"}'},
        {"fs.jindo.args": "-ofs.oss.accessKeySecret=hunter2"},
        {"otherOpts": "-o passwd_file=hunter2"},
        {"fs.oss.bucket.bkt.securityToken": "hunter2"},
        {"my-secret": "hunter2"},
        {"options": '{"fs.oss.accessKeySecret": "hunter2"'},
    ],
)
def test_a_credential_among_the_attributes_is_refused_and_never_repeated(attributes: dict[str, str]) -> None:
    with pytest.raises(InvalidOption) as refusal:
        parse(attributes)
    error = refusal.value
    assert "hunter2" not in f"{error} {error!r} {error.args} {error.value} {error.__cause__!r}"


# --- anything at all ---

KEYS = st.sampled_from([name.replace("<NAME>", "bkt") for row in TABLE for name in row.names]) | st.text(max_size=12)
TEXTS = st.text(max_size=30) | st.sampled_from(
    ["true", "1", "-1", "4Mi", "oss://bkt/", "{}", "-oro", "KMS", "public", ""]
)


@settings(max_examples=300)
@given(st.dictionaries(KEYS, TEXTS, max_size=5), st.lists(st.text(max_size=10), max_size=2), st.booleans())
def test_any_attributes_are_a_volume_or_refused(attributes: dict[str, str], flags: list[str], read_only: bool) -> None:
    try:
        parsed = parse_volume({**PLACE, **attributes}, cpu_count=2, read_only=read_only, mount_flags=flags)
    except (InvalidOption, UnsupportedVolume):
        return
    assert parsed.spec.arguments.read_only or not read_only


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


@given(JSON)
def test_any_json_is_options_or_refused(document: object) -> None:
    try:
        parse({"options": json.dumps(document)})
    except (InvalidOption, UnsupportedVolume):
        return


@pytest.mark.parametrize("tag", ["5000/evil", "a b", "1@sha256:00", "-x", "x" * 129])
def test_a_tag_that_would_name_another_image_is_refused(tag: str) -> None:
    with pytest.raises(InvalidOption, match=r"fs\.jindo\.fuse\.pod\.image\.tag"):
        parse({"fs.jindo.fuse.pod.image.tag": tag})
