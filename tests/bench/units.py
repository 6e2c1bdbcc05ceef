"""How figures are said."""


def said(value: float, unit: str) -> str:
    """A value as one reads it."""
    digits = 2 if abs(value) < 10 and not unit else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}{f' {unit}' if unit else ''}"
