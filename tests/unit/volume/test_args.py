import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.errors import InvalidOption
from csi.volume.args import parse_arguments, parse_mount_flags
from csi.volume.spec import CachePolicy
from csi.volume.table.argument_table import ARGUMENTS, Argument, ArgumentValue
from csi.volume.table.option import Effect

ZEROS = {"attr_timeout": 0.0, "entry_timeout": 0.0, "negative_timeout": 0.0}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("-oattr_timeout=0 -oentry_timeout=0 -onegative_timeout=0", ZEROS),
        ("-oattr_timeout=0-oentry_timeout=0-onegative_timeout=0", ZEROS),
        ("-oattr_timeout=0,-oentry_timeout=0 , -onegative_timeout=0,", ZEROS),
        ("-o attr_timeout=0,entry_timeout=0,negative_timeout=0", ZEROS),
        ("-oattr_timeout=0,entry_timeout=0 -o negative_timeout=0", ZEROS),
        ("\t-oattr_timeout=0\n-oentry_timeout=0\n  -onegative_timeout=0 ", ZEROS),
        ("-oattr_timeout=3, -onegative_timeout=0", {"attr_timeout": 3.0, "negative_timeout": 0.0}),
        ("-o ro", {"read_only": True}),
        ("-oro_mount", {"read_only": True}),
        ("-oro-ono_symlink-oattr_timeout=0.5", {"read_only": True, "symlinks": False, "attr_timeout": 0.5}),
        ("-oxengine-oro", {"read_only": True}),
        ("-oxengine=jindofsx-oro", {"read_only": True}),
        ("-ofsname=x-opened-oro", {"read_only": True}),
        ("-oattr_timeout=1 -oattr_timeout=2", {"attr_timeout": 2.0}),
        ("-odirect_io -okernel_cache", {"cache": CachePolicy.DIRECT}),
        ("-oauto_cache -odirect_io", {"cache": CachePolicy.DIRECT}),
        ("-f -oro -d", {"read_only": True}),
        ("-oenable_pread", {"random_read": True}),
        ("-omax_idle_threads=4", {"max_idle_threads": 4}),
    ],
)
def test_arguments_are_read_however_a_guide_prints_them(text: str, values: dict) -> None:
    assert parse_arguments(text).values == values


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("-ofs.oss.retry.count=3", {"fs.oss.retry.count": "3"}),
        ("-ofs.oss.retry.count=3-oro", {"fs.oss.retry.count": "3"}),
        ("-ofs.oss.endpoint=vpc100-oss-cn-x.aliyuncs.com", {"fs.oss.endpoint": "vpc100-oss-cn-x.aliyuncs.com"}),
        (
            "-oro-ofs.oss.endpoint=http://a-ofs.oss.retry.count=3",
            {"fs.oss.endpoint": "http://a", "fs.oss.retry.count": "3"},
        ),
        ("-ologger.level=1", {"logger.level": "1"}),
    ],
)
def test_options_may_be_written_as_arguments(text: str, options: dict[str, str]) -> None:
    assert parse_arguments(text).options == options


def test_owners_and_masks_are_kept_apart_from_mount_arguments() -> None:
    parsed = parse_arguments("-ouid=1000 -ogid=100,umask=0022 -ofmask=133 -odmask=0o022")
    assert parsed.ownership == {"uid": 1000, "gid": 100, "umask": 0o022, "fmask": 0o133, "dmask": 0o022}
    assert parsed.values == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-oattr_timout=0", "did you mean -oattr_timeout?"),
        ("-oattr_timeout=0-oentry_timout=0", "did you mean -oentry_timeout?"),
        ("-onosymlink", "did you mean -ono_symlink?"),
        ("-oRO", "there is no argument '-oRO'"),
        ("-ono_such_thing_at_all", "there is no argument '-ono_such_thing_at_all'"),
        ("-o", "nothing follows '-o'"),
        ("-oro -o", "nothing follows '-o'"),
        ("-oro-o", "nothing follows '-o'"),
        ("-o -oro", "nothing follows '-o'"),
        ("ro", "write -oro"),
        ("-oro attr_timeout=0", "write -oattr_timeout"),
        ("--ro", "'--ro' is not an argument"),
        ("-oro=1", "no value"),
        ("-oattr_timeout", "seconds"),
        ("-oattr_timeout=", "seconds"),
        ("-oattr_timeout=-1", "'-1'"),
        ("-oattr_timeout=nan", "'nan'"),
        ("-oattr_timeout=1e9999", "'1e9999'"),
        ("-oattr_timeout=99999999999", "'99999999999'"),
        ("-oattr_timeout=3s", "'3s'"),
        ("-omax_idle_threads=0", "from 1"),
        ("-ouid=-1", "'-1'"),
        ("-ouid=root", "'root'"),
        ("-ouid=4294967295", "from 0 to 4294967294"),
        ("-oumask=999", "octal"),
        ("-oumask=7777", "octal"),
        ("-oro -orw", "contradict"),
        ("-okernel_cache -oauto_cache", "contradict"),
        ("-ofs.oss.append.enable", "write -ofs.oss.append.enable=VALUE"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        parse_arguments(text)
    assert said in str(refusal.value)
    assert "fs.jindo.args" in str(refusal.value)


@pytest.mark.parametrize("text", ["-opasswd_file=hunter2", "-oaksecret=hunter2", "secret=hunter2", "-onothing=hunter2"])
def test_the_value_of_a_refused_argument_is_not_repeated(text: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        parse_arguments(text)
    assert "hunter2" not in str(refusal.value)


EXAMPLES = {
    ArgumentValue.NONE: "",
    ArgumentValue.SECONDS: "=5",
    ArgumentValue.NUMBER: "=5",
    ArgumentValue.OCTAL: "=022",
}
NAMED = [(argument, name) for argument in ARGUMENTS for name in (argument.name, *argument.aliases)]


@pytest.mark.parametrize(("argument", "name"), NAMED, ids=[name for _, name in NAMED])
def test_every_argument_sets_something_or_says_why_not(argument: Argument, name: str) -> None:
    text = f"-o{name}{EXAMPLES.get(argument.value, '')}"
    if argument.effect is Effect.REFUSED:
        with pytest.raises(InvalidOption, match=f"-o{name} is not accepted here") as refusal:
            parse_arguments(text)
        assert refusal.value.hint == argument.reason
    elif argument.effect is Effect.NO_EFFECT:
        assert parse_arguments(text).notes == ((f"-o{name}", argument.reason),)
        assert parse_arguments(f"{text}=1").values == {}
    else:
        parsed = parse_arguments(text)
        assert set(parsed.values) | set(parsed.ownership) == {argument.sets}
        assert parsed.notes == ()


@pytest.mark.parametrize(
    "flags",
    [["ro", "attr_timeout=3"], ["ro,attr_timeout=3"], ["-o ro", "-oattr_timeout=3"], [" ro ", "", "attr_timeout=3"]],
)
def test_mount_options_need_no_dash(flags: list[str]) -> None:
    assert parse_mount_flags(flags).values == {"read_only": True, "attr_timeout": 3.0}


def test_a_bad_mount_option_is_named_by_its_source() -> None:
    with pytest.raises(InvalidOption, match="mountOptions: there is no argument '-oreadonly'"):
        parse_mount_flags(["readonly"])


@given(st.text(alphabet=st.sampled_from("-o ,=aro_tme1.\tfs"), max_size=40) | st.text(max_size=60))
def test_any_text_is_arguments_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidOption):
        parse_arguments(text)
    with contextlib.suppress(InvalidOption):
        parse_mount_flags([text])


FLAGS = ["ro", "no_symlink", "no_xattr", "pread", "attr_timeout=3", "entry_timeout=0", "uid=7"]


@given(st.lists(st.sampled_from(FLAGS), unique=True), st.sampled_from([" ", "", ",", ", ", "  ,"]))
def test_glue_and_separators_do_not_change_the_meaning(flags: list[str], separator: str) -> None:
    joined = separator.join(f"-o{flag}" for flag in flags)
    assert parse_arguments(joined) == parse_mount_flags(flags)
