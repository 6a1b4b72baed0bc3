"""`seqlab completion`."""

from typing import Literal

from tyro.conf import Positional

SCRIPT = """# Completion of seqlab commands, options and files.
_seqlab() {
    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} first=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "COMMANDS" -- "$current"))
    elif [[ $current == --* ]]; then
        case " FIRST " in *" $command "*) first=${COMP_WORDS[2]} ;; esac
        local help options
        help=$(seqlab "$command" ${first:+"$first"} --help 2>/dev/null)
        options=$(grep -oE -- '--[a-z][a-z0-9.-]*' <<< "$help" | sort -u)
        COMPREPLY=($(compgen -W "$options" -- "$current"))
    else
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}
complete -o filenames -F _seqlab seqlab
"""


def completion(shell: Positional[Literal["bash", "zsh"]]) -> None:
    """Print a script that completes commands and options in a shell.

    Example: eval "$(seqlab completion bash)"
    """
    from seqlab.cli.main import COMMANDS, WITH_FIRST_ARGUMENT

    if shell == "zsh":
        print("autoload -Uz bashcompinit && bashcompinit")
    print(SCRIPT.replace("COMMANDS", " ".join(COMMANDS)).replace("FIRST", " ".join(WITH_FIRST_ARGUMENT)), end="")
