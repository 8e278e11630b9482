"""What pydantic finds wrong with JSON, in words."""

from pydantic import ValidationError


def describe_faults(error: ValidationError, *, unknown_key: str = "unknown key") -> str:
    """Say where each fault is and what was expected there, one after the other.

    Args:
        error: What pydantic raised.
        unknown_key: What to say of a key that is not expected.
    """
    parts = []
    for one in error.errors():
        place = ".".join(str(step) for step in one["loc"])
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            message = unknown_key
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(dict.fromkeys(parts))
