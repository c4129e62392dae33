"""Words of messages that depend on a number."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with the words behind it: `1 problem`, `2,000 problems`; `many` if more than an s differs.

    The words may go on: `counted(n, "record is broken", "records are broken")`.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
