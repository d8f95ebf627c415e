"""Durations for people."""


def format_seconds(seconds: float | None) -> str:
    """Writes a duration for people: `48 s`, `12.5 min`, `3.2 h`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
