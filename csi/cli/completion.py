"""`ossfuse completion bash|zsh|fish`: the script that teaches a shell the commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": 'add to ~/.bashrc: eval "$(ossfuse completion bash)"',
    "zsh": 'add to ~/.zshrc: eval "$(ossfuse completion zsh)"',
    "fish": "ossfuse completion fish > ~/.config/fish/completions/ossfuse.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(tuple(_HOW)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: add to ~/.bashrc: eval "$(ossfuse completion bash)"
    zsh:  add to ~/.zshrc:  eval "$(ossfuse completion zsh)"
    fish: ossfuse completion fish > ~/.config/fish/completions/ossfuse.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "ossfuse", "_OSSFUSE_COMPLETE")
    click.echo(f"# {_HOW[shell]}\n{script.source_template % script.source_vars()}")
