"""What the sites of a call answered: records, an error, or nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flowerbed.errors import WorkFailed


@dataclass(frozen=True)
class Reply:
    """One site's part of a call; exactly one of `records`, `error` and `absent` is there."""

    site: str
    records: RecordDict | None
    """What the site sent."""
    error: str | None
    """Why its ClientApp failed, or why the site refused it, in one line."""
    absent: str | None
    """Why nothing came: the site is offline, or did not answer in time."""
    seconds: float
    """From the call to the reply on the coordinator."""

    def __getitem__(self, name: str) -> ArrayRecord | MetricRecord | ConfigRecord:
        """One record by its name; WorkFailed where the site sent no records, KeyError where it sent others."""
        if self.records is None:
            raise WorkFailed(self.told())
        if name not in self.records:
            raise KeyError(f"{self.site} sent no '{name}': it sent {', '.join(self.records) or 'nothing'}")
        return self.records[name]

    def told(self) -> str:
        """Say in one line what the site did."""
        if self.records is not None:
            return f"{self.site} replied after {self.seconds:.1f} s: {', '.join(self.records) or 'nothing'}"
        return (
            f"{self.site} failed: {self.error}" if self.error is not None else f"{self.site} is absent: {self.absent}"
        )


class Replies(Mapping[str, Reply]):
    """The replies of one call by site, one for each site that was asked."""

    def __init__(self, task: str, replies: Mapping[str, Reply]) -> None:
        self.task = task
        self._replies = dict(replies)

    def __getitem__(self, site: str) -> Reply:
        return self._replies[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._replies)

    def __len__(self) -> int:
        return len(self._replies)

    def __repr__(self) -> str:
        return "\n".join([f"{self.task}:", *(f"  {reply.told()}" for reply in self._replies.values())])

    @property
    def records(self) -> dict[str, RecordDict]:
        """The records of the sites that sent some."""
        return {site: reply.records for site, reply in self.items() if reply.records is not None}

    @property
    def errors(self) -> dict[str, str]:
        """The sites that failed, and why."""
        return {site: reply.error for site, reply in self.items() if reply.error is not None}

    @property
    def absent(self) -> dict[str, str]:
        """The sites that did not answer, and why."""
        return {site: reply.absent for site, reply in self.items() if reply.absent is not None}

    def all(self) -> dict[str, RecordDict]:
        """The records of every site that was asked; WorkFailed, with the reasons, unless all sent some."""
        lacking = [reply.told() for reply in self.values() if reply.records is None]
        if lacking:
            raise WorkFailed(f"{self.task}: {'; '.join(lacking)}")
        return self.records
