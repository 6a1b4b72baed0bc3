"""The one error a user is meant to see."""


class SeqlabError(ValueError):
    """Bad input, told in one line that says what to do. The command prints it and exits with 2."""


def at_least(name: str, value: int | float, least: int) -> None:
    """Raises for a value that is too small, or no number."""
    if not value >= least:  # NaN too
        raise SeqlabError(f"{name} must be at least {least}, not {value}")
