import pytest

from csi.errors import InvalidOption
from csi.volume.modes import expansion, parse_mode
from csi.volume.spec import Mode


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("fast", Mode.FAST),
        ("FAST", Mode.FAST),
        ("FastReadWrite", Mode.FAST),
        ("fastreadwrite", Mode.FAST),
        ("快速读写", Mode.FAST),
        ("快速讀寫", Mode.FAST),
        ("incremental", Mode.INCREMENTAL),
        ("IncrementalReadWrite", Mode.INCREMENTAL),
        ("增量读写", Mode.INCREMENTAL),
        ("增量讀寫", Mode.INCREMENTAL),
        ("consistent", Mode.CONSISTENT),
        ("ConsistentReadWrite", Mode.CONSISTENT),
        ("读写一致", Mode.CONSISTENT),
        ("讀寫一致", Mode.CONSISTENT),
        ("readonly", Mode.READONLY),
        ("ReadOnly", Mode.READONLY),
        ("只读", Mode.READONLY),
        ("只讀", Mode.READONLY),
        ("custom", Mode.CUSTOM),
        ("自定义配置", Mode.CUSTOM),
        ("自定義配置", Mode.CUSTOM),
    ],
)
def test_a_mode_is_known_by_every_name_pai_gives_it(name: str, mode: Mode) -> None:
    assert parse_mode(name) is mode


@pytest.mark.parametrize(
    ("name", "hint"), [("fats", "did you mean fast?"), ("read-only", "did you mean readonly?"), ("", ""), ("x", "")]
)
def test_another_name_is_refused_with_the_nearest_mode(name: str, hint: str) -> None:
    with pytest.raises(InvalidOption, match="fast, incremental, consistent, readonly, custom") as refusal:
        parse_mode(name)
    assert refusal.value.hint == hint


READ_WRITE = "-oattr_timeout=3 -oentry_timeout=0 -onegative_timeout=0 -oauto_cache -ono_symlink"
DOWNLOAD, UPLOAD = "fs.oss.download.thread.concurrency", "fs.oss.upload.thread.concurrency"


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        (Mode.FAST, {DOWNLOAD: "8", UPLOAD: "8", "fs.jindo.args": READ_WRITE}),
        (Mode.INCREMENTAL, {UPLOAD: "8", "fs.jindo.args": READ_WRITE}),
        (
            Mode.CONSISTENT,
            {"fs.jindo.args": "-oattr_timeout=0 -oentry_timeout=0 -onegative_timeout=0 -oauto_cache -ono_symlink"},
        ),
        (
            Mode.READONLY,
            {
                DOWNLOAD: "8",
                "fs.jindo.args": "-oro -oattr_timeout=7200 -oentry_timeout=7200 -onegative_timeout=7200 "
                "-okernel_cache -ono_symlink",
            },
        ),
        (Mode.CUSTOM, {}),
    ],
)
def test_a_mode_expands_to_what_pai_prints_for_it(mode: Mode, options: dict[str, str]) -> None:
    assert expansion(mode, 4) == options
