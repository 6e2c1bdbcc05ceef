"""Which sites take part in a round, by rule; nothing here needs Flower or PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Candidate:
    """A site as it described itself."""

    site: str
    labels: Mapping[str, str] = field(default_factory=dict)
    examples: int = 0
    free_memory: int = 0
    """Megabytes."""
    why_not: str = ""
    """Why it cannot train, as the site sees it or because it did not answer; empty: it can."""


@dataclass(frozen=True)
class Rules:
    """What a site must have to be enrolled."""

    labels: Mapping[str, str] = field(default_factory=dict)
    min_examples: int = 1
    min_free_memory: int = 0
    """Megabytes."""

    @classmethod
    def read(cls, config: Mapping[str, object]) -> "Rules":
        """Take the rules from the run config; ValueError where `enrol-label` is not key=value."""
        labels = {}
        for item in filter(None, (part.strip() for part in str(config["enrol-label"]).split(","))):
            key, sign, value = item.partition("=")
            if not sign or not key or not value:
                raise ValueError(f"enrol-label '{item}': write it as key=value")
            labels[key.strip()] = value.strip()
        return cls(labels, int(str(config["min-examples"])), int(str(config["min-free-memory"])))

    def against(self, candidate: Candidate) -> str:
        """Why the site is excluded; empty: it is enrolled."""
        if candidate.why_not:
            return candidate.why_not
        for key, value in self.labels.items():
            has = candidate.labels.get(key)
            if has != value:
                return f"label {key} is {has}, not {value}" if has else f"it has no label {key}"
        if candidate.examples < self.min_examples:
            return f"{candidate.examples} examples, fewer than {self.min_examples}"
        if candidate.free_memory < self.min_free_memory:
            return f"{candidate.free_memory} MB of memory free, less than {self.min_free_memory}"
        return ""
