"""How the command line talks to people: steps with their durations, on standard error."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status


@dataclass
class Steps:
    """Shows what is being done, and how long each step took."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator["Step"]:
        """One step: a spinner while it lasts, then a line with what came of it."""
        step = Step(name)
        begin = time.monotonic()
        with self.console.status(name) as status:
            step.status = status
            yield step
        took = self.seconds[name] = time.monotonic() - begin
        self.console.print(f"[green]✓[/] {name:<12} {step.result}[dim]  {took:.1f} s[/]", soft_wrap=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, soft_wrap=True)


@dataclass
class Step:
    """One step while it lasts."""

    name: str
    result: str = ""
    status: Status | None = None

    def now(self, what: str) -> None:
        """Say what the step is at."""
        if self.status is not None:
            self.status.update(f"{self.name}: {what}")
