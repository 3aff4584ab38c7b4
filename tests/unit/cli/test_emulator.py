from csi.cli.emulator import command
from csi.emulator.__main__ import _parser


def test_the_command_has_the_options_of_the_module() -> None:
    ours = {name: option.required for option in command.params for name in option.opts}
    theirs = {name: action.required for action in _parser()._actions for name in action.option_strings}
    assert ours == {name: required for name, required in theirs.items() if name not in ("-h", "--help")}
