"""The one error a user is meant to see."""


class SeqlabError(ValueError):
    """Bad input, told in one line that says what to do. The command prints it and exits with 2."""
