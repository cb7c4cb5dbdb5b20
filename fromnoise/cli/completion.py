"""Shell completion: a short script for each shell, which asks `fromnoise --complete WORDS` what may come next.

What may come is read from the help of the command itself, so that nothing is listed twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO

from fromnoise.cli import main
from fromnoise.core.config import hint
from fromnoise.recipes import all_recipes

SCRIPTS = {
    "bash": """\
# To have it in every shell: fromnoise --print-completion bash >> ~/.bashrc
_fromnoise() {
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _fromnoise fromnoise""",
    "zsh": """\
# To have it in every shell, after compinit: fromnoise --print-completion zsh >> ~/.zshrc
_fromnoise() {
    local -a found
    found=(${(f)"$("${words[1]}" --complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -a found; else _files; fi
}
compdef _fromnoise fromnoise""",
    "fish": """\
# To have it in every shell: fromnoise --print-completion fish > ~/.config/fish/completions/fromnoise.fish
function __fromnoise
    set -l words (commandline -opc)
    fromnoise --complete $words[2..-1] (commandline -ct | string collect --allow-empty) 2>/dev/null
end
complete -c fromnoise -a '(__fromnoise)'""",
}


def script(words: Sequence[str]) -> str:
    """What the shell named by the one word of `words` is to read.

    Raises:
        ValueError: one line, for another shell.
    """
    name = words[0] if len(words) == 1 else ""
    if name not in SCRIPTS:
        raise ValueError(
            f"--print-completion takes the name of a shell, given {' '.join(words)!r}; {hint(name, SCRIPTS)}"
        )
    return SCRIPTS[name]


def candidates(words: Sequence[str]) -> list[str]:
    """What the last of `words`, which is begun and may be empty, can become; none where it is a path or a prompt."""
    *before, part = words or [""]
    before, part = [word for word in before if word != "="], "" if part == "=" else part  # bash parts words there
    if not before:
        return _beginning(part, [*main.COMMANDS, "--help", "--version", "--print-completion"])
    command, *args = before
    if command == "--print-completion":
        return _beginning(part, SCRIPTS)
    if command not in main.COMMANDS:
        return []
    told = _help(command, args)
    choices = dict(re.findall(r"^  (--[\w.]+)(?: \{(.*?)\})?", told, re.M))
    if args and choices.get(args[-1]):
        return _beginning(part, choices[args[-1]].split(","))
    if part.startswith("-"):
        return _beginning(part, ["--help", *choices])
    after_flag = bool(args) and args[-1].startswith("-")
    return _beginning(part, all_recipes()) if "RECIPE" in told and not after_flag else []


def _beginning(part: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(part)]


def _help(command: str, args: Sequence[str]) -> str:
    """The help of a command, with the recipe or run and the types of configs that were chosen so far, and of a sweep
    whether it is one of fields."""
    chosen = [word for i, arg in enumerate(args[:-1]) if arg.endswith(".type") for word in args[i : i + 2]]
    chosen += [arg for arg in args if command == "sweep" and arg == "--field"]
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(StringIO()), suppress(SystemExit):
        main.main([command, *(arg for arg in args[:1] if not arg.startswith("-")), *chosen, "--help"])
    return printed.getvalue()
