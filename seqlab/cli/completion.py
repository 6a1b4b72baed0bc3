"""The completion of commands and options in a shell."""

from collections.abc import Iterable

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


def completion_script(shell: str, commands: Iterable[str], with_first_argument: Iterable[str]) -> str:
    """Returns a script for bash or zsh. The options of `with_first_argument` commands depend on their argument."""
    script = SCRIPT.replace("COMMANDS", " ".join(commands)).replace("FIRST", " ".join(with_first_argument))
    return script if shell == "bash" else f"autoload -Uz bashcompinit && bashcompinit\n{script}"
