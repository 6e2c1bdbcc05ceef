"""Makes Flower's records of what a caller has at hand: arrays, numbers, settings."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flowerbed.errors import UsageError

Record = ArrayRecord | MetricRecord | ConfigRecord
Records = RecordDict | Mapping[str, Any]


def for_sites(given: Records | None, asked: Iterable[str] | None, known: Collection[str]) -> dict[str, RecordDict]:
    """Which records go to which sites.

    Args:
        given: the records for all, by their names; or, by the names of sites, those for each. None: no records.
        asked: the sites to ask; None: all that are known, or those that `given` names.
        known: the federation's sites.

    Raises:
        UsageError: a site is unknown or has no records, or a value is no record.
    """
    if isinstance(asked, str):
        raise UsageError(f"sites='{asked}': give a list, as in sites=['{asked}']")
    by_site = not isinstance(given, RecordDict) and bool(given) and any(name in known for name in given or ())
    names = list(dict.fromkeys(asked if asked is not None else (given or ()) if by_site else known))
    unknown = [name for name in [*names, *(given or () if by_site else ())] if name not in known]
    if unknown:
        raise UsageError(f"'{unknown[0]}' is no site of this federation: it has {', '.join(known) or 'none'}")
    if not names:
        raise UsageError("no sites are asked: name one, or leave `sites` out to ask all")
    if not by_site or given is None:
        one = of(given or {})
        return dict.fromkeys(names, one)
    lacking = [name for name in names if name not in given]
    if lacking:
        raise UsageError(f"there are no records for {lacking[0]}: give some for every site that is asked")
    made: dict[int, RecordDict] = {}  # what is one object for several sites stays one
    return {name: made.setdefault(id(given[name]), of(given[name])) for name in names}


def of(given: Records) -> RecordDict:
    """Make a RecordDict of a mapping from names to records, arrays, or mappings of numbers and settings."""
    if isinstance(given, RecordDict):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(f"records are a RecordDict or a mapping of names, not {type(given).__name__}")
    return RecordDict({str(name): _record(str(name), value) for name, value in given.items()})


def _record(name: str, value: Any) -> Record:
    """A record as it is; arrays as ArrayRecord; numbers as MetricRecord; other settings as ConfigRecord."""
    try:
        if isinstance(value, Record):
            return value
        if isinstance(value, np.ndarray):
            return ArrayRecord([value])
        if isinstance(value, list | tuple) and all(isinstance(each, np.ndarray) for each in value):
            return ArrayRecord(list(value))
        if isinstance(value, Mapping):
            plain = {str(key): each.item() if isinstance(each, np.generic) else each for key, each in value.items()}
            numbers = all(type(each) in (int, float) for each in plain.values())
            return MetricRecord(plain) if numbers else ConfigRecord(plain)
    except (TypeError, ValueError) as error:
        raise UsageError(f"records['{name}'] cannot travel: {' '.join(str(error).split())}") from None
    raise UsageError(
        f"records['{name}'] is a {type(value).__name__}: give a record of Flower's, a list of arrays, or a mapping of "
        "names to numbers or settings"
    )
