"""FedAvg over the sites that the rules enrol, round by round, with a checkpoint after each."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from pytorch_hospitals import checkpoints
from pytorch_hospitals.checkpoints import Checkpoint
from pytorch_hospitals.enrolment import Candidate, Rules


class EnrolByRule(FedAvg):
    """Asks every site before a round, and sends the round to those that the rules enrol."""

    def __init__(self, rules: Rules, folder: Path, *, min_sites: int, patience: float = 600.0) -> None:
        """Keep enrolment.json and the checkpoints in `folder`; a site has `patience` seconds for each reply."""
        super().__init__()
        self.rules = rules
        self.folder = folder
        self.min_sites = min_sites
        self.patience = patience
        self.best = -1.0
        self._enrolled: dict[int, str] = {}
        self._online = 0
        self._notes: list[dict[str, Any]] = []

    def run(self, grid: Grid, arrays: ArrayRecord, first: int, last: int) -> ArrayRecord:
        """Do the rounds from `first` to `last`, and give the model after them.

        Raises RuntimeError when a round enrols too few sites, or none of them brings a result.
        """
        log(INFO, "Starting %s strategy: rounds %s to %s, %s", type(self).__name__, first, last, self.rules)
        for server_round in range(first, last + 1):
            log(INFO, "")
            log(INFO, "[ROUND %s/%s]", server_round, last)
            self.enrol(server_round, grid)
            config = ConfigRecord()
            trained = self._exchange(grid, self.configure_train(server_round, arrays, config, grid))
            arrays = self._averaged(server_round, trained)
            tested = self._exchange(grid, self.configure_evaluate(server_round, arrays, config, grid))
            self._keep(server_round, arrays, tested)
        return arrays

    def enrol(self, server_round: int, grid: Grid) -> None:
        """Ask all sites that are connected, and choose; enrolment.json says who was chosen and why others were not."""
        nodes = sorted(grid.get_node_ids())
        self._online = len(nodes)
        ask = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        answers = self._exchange(grid, [Message(ask, node, MessageType.QUERY) for node in nodes])
        candidates = {node: Candidate(f"node {node}", why_not="it did not answer in time") for node in nodes}
        for answer in answers:
            node = answer.metadata.src_node_id
            if node in candidates:
                candidates[node] = _candidate(answer)
        self._enrolled = {}
        for node, candidate in sorted(candidates.items(), key=lambda item: item[1].site):
            why_not = self.rules.against(candidate)
            if not why_not:
                self._enrolled[node] = candidate.site
            said = f"excluded from round {server_round}: {why_not}" if why_not else f"enrolled in round {server_round}"
            log(INFO, "Client %s %s", candidate.site, said)
            note = {"round": server_round, "enrolled": not why_not, **asdict(candidate), "why_not": why_not}
            self._notes.append(note)
        _write(self.folder / "enrolment.json", {"rules": asdict(self.rules), "sites": self._notes})
        if len(self._enrolled) < self.min_sites:
            raise RuntimeError(
                f"round {server_round} enrols {len(self._enrolled)} sites, min-sites is {self.min_sites}"
            )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to the sites that are enrolled, and to no other."""
        return self._messages("configure_train", MessageType.TRAIN, server_round, arrays, config)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Have the same sites test it."""
        return self._messages("configure_evaluate", MessageType.EVALUATE, server_round, arrays, config)

    def _messages(
        self, step: str, kind: str, server_round: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> list[Message]:
        log(INFO, "%s: Sampled %s nodes (out of %s)", step, len(self._enrolled), self._online)
        config["server-round"] = server_round
        content = RecordDict({"arrays": arrays, "config": config})
        return [Message(content, node, kind) for node in self._enrolled]

    def _exchange(self, grid: Grid, messages: Iterable[Message]) -> list[Message]:
        """Send the messages, and give the replies in the order of the sites: sums depend on it in the last digits."""
        replies = grid.send_and_receive(messages=messages, timeout=self.patience)
        return sorted(replies, key=lambda reply: self._enrolled.get(reply.metadata.src_node_id, ""))

    def _averaged(self, server_round: int, replies: list[Message]) -> ArrayRecord:
        arrays, metrics = self.aggregate_train(server_round, replies)
        if arrays is None or metrics is None:
            raise RuntimeError(f"round {server_round}: no site returned a model, see the reasons above")
        log(INFO, "\t└──> Aggregated MetricRecord: %s", metrics)
        return arrays

    def _keep(self, server_round: int, arrays: ArrayRecord, replies: list[Message]) -> None:
        """Write the round's checkpoint."""
        metrics = self.aggregate_evaluate(server_round, replies)
        if metrics is None:
            raise RuntimeError(f"round {server_round}: no site tested the model, see the reasons above")
        log(INFO, "\t└──> Aggregated MetricRecord: %s", metrics)
        accuracy, loss = _number(metrics, "accuracy"), _number(metrics, "loss")
        better = accuracy > self.best
        self.best = max(accuracy, self.best)
        reached = Checkpoint(server_round, accuracy, loss, arrays.to_torch_state_dict())
        checkpoints.save(self.folder / checkpoints.FOLDER, reached, best=better)
        log(INFO, "Saved checkpoint round-%s.pt%s", server_round, ", the best so far" if better else "")


def _candidate(answer: Message) -> Candidate:
    if answer.has_error():
        reason = " ".join(str(answer.error.reason).split())
        return Candidate(f"node {answer.metadata.src_node_id}", why_not=f"it cannot answer: {reason}")
    about, numbers = answer.content.config_records["site"], answer.content.metric_records["numbers"]
    labels = {key.removeprefix("label-"): str(value) for key, value in about.items() if key.startswith("label-")}
    return Candidate(
        str(about["site"]) or f"node {answer.metadata.src_node_id}",
        labels,
        int(_number(numbers, "num-examples")),
        int(_number(numbers, "free-memory")),
        "" if about["healthy"] else str(about["why-not"]) or "it says that it is not healthy",
    )


def _number(metrics: MetricRecord, name: str) -> float:
    value = metrics[name]
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is no number: {value}")
    return float(value)


def _write(file: Path, content: dict[str, Any]) -> None:
    """Write complete or not at all: the driver may collect at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(file)
