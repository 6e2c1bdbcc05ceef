"""report.html of a run: one page that needs nothing else, made from run.json (and the end of log.txt beside it)."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2

from flowerbed import __version__
from flowerbed.errors import UsageError
from flowerbed.runs import charts
from flowerbed.runs.charts import Chart, Point, Sent, Timeline

NAME = "report.html"
_TEMPLATE = "report.html.j2"
_EXAMPLES = "num-examples"
_PHASES = ("train", "evaluate", "server")
_FEW_ROWS = 60
_TROUBLES = 100
_LOG_LINES = 30
_LIST_SHOWN = 12
_VERDICTS = {
    "completed": ("Completed", "Every expected reply of every round came."),
    "incomplete": ("Incomplete", "The run ended, but not every expected reply came."),
    "failed": ("Failed", "The app failed, or no site ever trained."),
    "stopped": ("Stopped", "The run was stopped before its end."),
    "timed-out": ("Timed out", "The run was stopped when its time was over."),
}

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A value in a table: as it is, and as it is read."""

    exact: str
    text: str


@dataclass(frozen=True)
class Table:
    """The numbers of a phase."""

    title: str
    columns: list[str]
    rows: list[tuple[list[str], list[Cell]]]
    """What a row is of, and its values."""
    heads: list[str]
    """What the first columns are."""

    @property
    def small(self) -> bool:
        """Whether it is short enough to stand open."""
        return len(self.rows) <= _FEW_ROWS


@dataclass(frozen=True)
class SiteRow:
    """What one site contributed."""

    name: str
    style: int
    node_id: str
    labels: str
    examples: str
    share: float | None
    """Percent of the examples."""
    bar: float
    """The same in percent of the largest share."""
    replies: str
    troubled: bool
    seconds: list[str]
    """Mean until the reply by kind, as the table's columns have it."""
    latest: str
    received: str
    sent: str


@dataclass(frozen=True)
class Trouble:
    """A reply that failed or never came."""

    round: int
    phase: str
    site: str
    what: str
    outcome: str


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    run: Json
    title: str
    verdict: str
    meaning: str
    facts: list[tuple[str, str]]
    troubles: list[Trouble]
    more_troubles: int
    absent: list[str]
    charts: list[Chart]
    styles: dict[str, int]
    """Site to its style; empty where there are too many to be told apart."""
    sites: list[SiteRow]
    kinds: list[str]
    timeline: Timeline | None
    before: str
    """How long it took until the first message."""
    together: Table | None
    by_site: list[Table]
    config: list[tuple[str, str, bool]]
    provenance: list[tuple[str, str]]
    log: list[str]
    version: str = __version__


def write(folder: Path) -> Path:
    """Write report.html beside a run's run.json, and give its path.

    Raises UsageError when the folder holds no run.
    """
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{folder} holds no run.json: name a run's folder, as runs/latest") from None
    try:
        log = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        log = []
    try:
        text = render(run, log)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder / 'run.json'} is no record of a run: {type(error).__name__} {error}") from None
    report = folder / NAME
    report.write_text(text, encoding="utf-8", errors="replace")
    return report


def write_or_say_why(folder: Path) -> None:
    """Write report.html, or a page that says why there is none: a run must not get lost for its page."""
    try:
        write(folder)
    except Exception as error:  # whatever an app put into its results, they come home
        (folder / NAME).write_text(
            f"<!doctype html><title>no report</title><p>This page could not be made ({type(error).__name__}); "
            "run.json, metrics.csv and log.txt beside it hold everything.",
            encoding="utf-8",
        )


def render(run: Json, log: Sequence[str] = ()) -> str:
    """The page's text for what run.json holds; `log` are the lines of the run's log."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(page=page(run, log), chart=charts)


def page(run: Json, log: Sequence[str] = ()) -> Page:
    """Put together what the page shows."""
    names = _site_names(run)
    styles = {name: index for index, name in enumerate(names, 1)} if len(names) <= charts.DISTINCT else {}
    troubles, absent = _troubles(run), _absent(run, names)
    sent, before = _sent(run)
    kinds = _kinds(run)
    verdict, meaning = _VERDICTS.get(str(run["status"]), (str(run["status"]).capitalize(), ""))
    return Page(
        run=run,
        title=f"{run['app']['name']} on {run['federation']}{', simulated' if run.get('simulation') else ''}",
        verdict=verdict,
        meaning=meaning,
        facts=_facts(run, names),
        troubles=troubles[:_TROUBLES],
        more_troubles=max(0, len(troubles) - _TROUBLES),
        absent=absent,
        charts=_charts(run, names, styles),
        styles=styles,
        sites=_sites(run, names, styles, kinds),
        kinds=kinds,
        timeline=charts.timeline(names, sent) if sent else None,
        before=before,
        together=_table_together(run),
        by_site=_tables_by_site(run),
        config=_config(run),
        provenance=_provenance(run),
        log=list(log[-_LOG_LINES:]) if run["status"] != "completed" else [],
    )


# What it is about ------------------------------------------------------------------------------------------


def _facts(run: Json, names: Sequence[str]) -> list[tuple[str, str]]:
    phases = [phase for _, _, phase in _phases(run)]
    expected = sum(
        phase.get("sampled") or (phase.get("results") or 0) + (phase.get("failures") or 0) for phase in phases
    )
    rounds = [entry for entry in run["rounds"] if any(kind in entry for kind in ("train", "evaluate"))]
    facts = [("submitted", when(run.get("submitted"), "%-d %b %Y, %H:%M")), ("took", duration(run.get("seconds")))]
    facts.append(("rounds", str(len(rounds))))
    facts.append(("sites", str(len(names))))
    facts.append(
        ("replies", f"{sum(phase.get('results') or 0 for phase in phases)} of {expected}" if phases else "not counted")
    )
    traffic = run.get("bytes") or {}
    facts.append(("to the sites", size(traffic.get("to_sites"))))
    facts.append(("from the sites", size(traffic.get("from_sites"))))
    return facts


def _troubles(run: Json) -> list[Trouble]:
    found = []
    for number, kind, phase in _phases(run):
        replies = phase.get("replies") or {}
        failed = {site: one for site, one in replies.items() if one["outcome"] != "result"}
        for site, one in failed.items():
            what = f"failed: {one['reason']}" if one["outcome"] == "failure" else "no reply came"
            found.append(Trouble(number, kind, site, what, one["outcome"]))
        for error in phase.get("errors") or []:
            if error["site"] not in failed:
                found.append(Trouble(number, kind, error["site"], f"failed: {error['reason']}", "failure"))
        missing = (phase.get("missing") or 0) - sum(one["outcome"] == "missing" for one in failed.values())
        if missing > 0 and phase.get("results") is not None and not replies:
            found.append(
                Trouble(number, kind, f"{missing} of {phase.get('sampled')} sites", "no reply came", "missing")
            )
    return found


def _absent(run: Json, names: Sequence[str]) -> list[str]:
    """Sites that were never sent a message, where the notes tell."""
    if not run.get("recorded"):
        return []
    asked = {site for _, _, phase in _phases(run) for site in phase.get("replies") or {}}
    return [name for name in names if name not in asked]


def _site_names(run: Json) -> list[str]:
    names = dict.fromkeys(sorted(run.get("sites") or {}))
    for _, _, phase in _phases(run):
        names |= dict.fromkeys(phase.get("replies") or {})
    for entry in run["rounds"]:
        for by_site in (entry.get("sites") or {}).values():
            names |= dict.fromkeys(by_site)
    return list(names)


# Numbers ---------------------------------------------------------------------------------------------------


def _charts(run: Json, names: Sequence[str], styles: Mapping[str, int]) -> list[Chart]:
    together: dict[tuple[str, str], list[Point]] = {}
    of_sites: dict[tuple[str, str], dict[str, list[Point]]] = {}
    for entry in run["rounds"]:
        number = entry["round"]
        for kind, values in _together(entry).items():
            for name, value in values.items():
                if not isinstance(value, list):
                    together.setdefault((kind, name), []).append((number, _finite(value)))
        for kind, by_site in (entry.get("sites") or {}).items():
            for site, values in by_site.items():
                for name, value in values.items():
                    if not isinstance(value, list) and name != _EXAMPLES:
                        lines = of_sites.setdefault((kind, name), {})
                        lines.setdefault(site, []).append((number, _finite(value)))
    drawn = []
    for index, (kind, name) in enumerate(sorted(together.keys() | of_sites.keys(), key=_order), 1):
        lines = of_sites.get((kind, name), {})
        ordered = {site: lines[site] for site in names if site in lines}
        chart = charts.curves(f"c{index}", kind, name, together.get((kind, name), []), ordered, styles)
        drawn.append(chart)
    return drawn


def _table_together(run: Json) -> Table | None:
    found = {(kind, name) for entry in run["rounds"] for kind, values in _together(entry).items() for name in values}
    columns = sorted(found, key=_order)
    rows = [
        ([str(entry["round"])], [_cell(values.get(kind, {}), name) for kind, name in columns])
        for entry in run["rounds"]
        if (values := _together(entry))
    ]
    return Table("", [f"{kind} {name}" for kind, name in columns], rows, ["round"]) if rows else None


def _tables_by_site(run: Json) -> list[Table]:
    kinds = dict.fromkeys(
        sorted(
            (kind for entry in run["rounds"] for kind in entry.get("sites") or {}), key=lambda kind: _order((kind, ""))
        )
    )
    tables = []
    for kind in kinds:
        found = [
            (entry["round"], site, values)
            for entry in run["rounds"]
            for site, values in sorted(((entry.get("sites") or {}).get(kind) or {}).items())
        ]
        names = list(dict.fromkeys(name for _, _, values in found for name in values))
        rows = [([str(number), site], [_cell(values, name) for name in names]) for number, site, values in found]
        tables.append(Table(kind, names, rows, ["round", "site"]))
    return tables


def _together(entry: Json) -> dict[str, Json]:
    """What all sites together, and the server, measured in a round."""
    found = {kind: phase.get("metrics") or {} for kind, phase in _phases_of(entry)}
    return {kind: values for kind, values in {**found, "server": entry.get("server") or {}}.items() if values}


def _cell(values: Json, name: str) -> Cell:
    if name not in values:
        return Cell("", "")
    value = values[name]
    if isinstance(value, list):
        exact = json.dumps(value)
        shown = " ".join(charts.number_text(_finite(each)) for each in value[:_LIST_SHOWN])
        return Cell(exact, shown + (f" … ({len(value)} values)" if len(value) > _LIST_SHOWN else ""))
    if value is None:
        return Cell("", "no number")
    return Cell(str(value), f"{value:.6g}" if isinstance(value, float) else str(value))


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


# Sites and time --------------------------------------------------------------------------------------------


def _sites(run: Json, names: Sequence[str], styles: Mapping[str, int], kinds: Sequence[str]) -> list[SiteRow]:
    examples = _examples(run)
    whole, most = sum(examples.values()), max(examples.values(), default=0.0)
    late = _latest(run)
    timings = (run.get("timings") or {}).get("sites") or {}
    rows = []
    for name in names:
        of_site = timings.get(name) or {}
        asked = sum(each["messages"] for each in of_site.values())
        good = sum(
            (phase.get("replies") or {}).get(name, {}).get("outcome") == "result" for _, _, phase in _phases(run)
        )
        labels = (run.get("labels") or {}).get(name) or {}
        rows.append(
            SiteRow(
                name=name,
                style=styles.get(name, 0),
                node_id=str((run.get("sites") or {}).get(name, "")),
                labels=", ".join(f"{key}={value}" for key, value in labels.items()),
                examples=f"{examples[name]:g}" if name in examples else "",
                share=round(100 * examples[name] / whole, 1) if name in examples and whole > 0 else None,
                bar=round(100 * examples.get(name, 0.0) / most, 1) if most > 0 else 0.0,
                replies=f"{good} of {asked}" if asked else "not asked" if run.get("recorded") else "",
                troubled=good < asked,
                seconds=[_seconds((of_site.get(kind) or {}).get("mean")) for kind in kinds],
                latest=str(late.get(name, "")),
                sent=size(sum(each["to_site"] for each in of_site.values())) if of_site else "",
                received=size(sum(each["from_site"] for each in of_site.values())) if of_site else "",
            )
        )
    return rows


def _examples(run: Json) -> dict[str, float]:
    """Each site's examples of its latest training, else of its latest evaluation."""
    found: dict[str, float] = {}
    for wanted in ("evaluate", "train"):
        for entry in run["rounds"]:
            for kind, by_site in (entry.get("sites") or {}).items():
                if kind.split(".")[0] == wanted:
                    for site, values in by_site.items():
                        number = _finite(values.get(_EXAMPLES))
                        if number is not None and number >= 0:
                            found[site] = number
    return found


def _latest(run: Json) -> dict[str, int]:
    """In how many phases each site was the last to reply."""
    counts: dict[str, int] = {}
    for _, _, phase in _phases(run):
        site = _last_of(phase)
        if site is not None:
            counts[site] = counts.get(site, 0) + 1
    return counts


def _last_of(phase: Json) -> str | None:
    """Who replied last, of at least two.

    The ServerApp asks for replies every few seconds and gets several at once; by the sites' own clocks they can be told
    apart, as long as these are about right.
    """
    replied = {site: one for site, one in (phase.get("replies") or {}).items() if one["seconds"] is not None}
    if len(replied) < 2:  # noqa: PLR2004 - one is neither first nor last
        return None
    trusted = all(
        one.get("created") is not None and -1 <= one["created"] <= one["seconds"] + 1 for one in replied.values()
    )
    last: str = max(replied, key=lambda site: float(replied[site]["created" if trusted else "seconds"]))
    return last


def _kinds(run: Json) -> list[str]:
    timings = (run.get("timings") or {}).get("sites") or {}
    return sorted({kind for of_site in timings.values() for kind in of_site}, key=lambda kind: _order((kind, "")))


def _sent(run: Json) -> tuple[list[Sent], str]:
    """The messages on their time axis, and how long it took until the first."""
    began: list[tuple[datetime, int, str, Json]] = []
    for number, kind, phase in _phases(run):
        replies = phase.get("replies") or {}
        if replies:
            began.append((min(_moment(one["sent"]) for one in replies.values()), number, kind, phase))
    if not began:
        return [], ""
    began.sort(key=lambda each: each[0])
    first = began[0][0]
    ends = [
        _moment(one["sent"]) + timedelta(seconds=one["seconds"] or 0)
        for _, _, _, phase in began
        for one in phase["replies"].values()
    ]
    end = max([*ends, *([_moment(run["finished"])] if run.get("finished") else [])])
    sent = []
    for index, (_, number, kind, phase) in enumerate(began):
        given_up = next((each[0] for each in began[index + 1 :] if each[0] > began[index][0]), end)
        last = _last_of(phase)
        for site, one in phase["replies"].items():
            start = (_moment(one["sent"]) - first).total_seconds()
            over = start + one["seconds"] if one["seconds"] is not None else (given_up - first).total_seconds()
            said = f"round {number} {kind}, {site}: {_outcome(one)}" + (", the last" if site == last else "")
            sent.append(
                Sent(site, number, kind.split(".")[0], one["outcome"], start, max(start, over), site == last, said)
            )
    submitted = run.get("submitted")
    return sent, duration((first - _moment(submitted)).total_seconds()) if submitted else ""


def _outcome(one: Json) -> str:
    if one["outcome"] == "missing":
        return "no reply came"
    what = f"failed ({one['reason']})" if one["outcome"] == "failure" else "replied"
    return f"{what} after {_seconds(one['seconds'])}"


# Configuration and provenance ------------------------------------------------------------------------------


def _config(run: Json) -> list[tuple[str, str, bool]]:
    overrides = run.get("overrides") or {}
    return [(key, _plain(value), key in overrides) for key, value in sorted((run.get("config") or {}).items())]


def _provenance(run: Json) -> list[tuple[str, str]]:
    app, versions = run["app"], run.get("versions") or {}
    packages = versions.get("packages") or {}
    listed: Iterable[tuple[str, Any]] = [
        ("app", f"{app['publisher']}/{app['name']} {app['version']}"),
        ("app's hash", app["fab_hash"]),
        ("from", run.get("origin")),
        ("federation", run["federation"]),
        ("submitted by", run.get("by")),
        ("submitted", when(run.get("submitted"))),
        ("started", when(run.get("started"))),
        ("finished", when(run.get("finished"))),
        ("run", run["run_id"]),
        ("release", run.get("release")),
        ("packages", ", ".join(f"{name} {version or ''}".strip() for name, version in packages.items())),
        ("Flower", versions.get("flower") or run.get("flower")),
        ("Python", versions.get("python")),
        ("Flowerbed", versions.get("flowerbed")),
        ("Flower's own word", " ".join(filter(None, [run.get("flower_status"), run.get("flower_details")]))),
        ("files", ", ".join(run.get("files") or []) or "none"),
    ]
    return [(name, str(value)) for name, value in listed if value]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


# How things are written ------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """A time span as people say it."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 100:  # noqa: PLR2004 - so far seconds alone are easier to read
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(number: float | None) -> str:
    """A number of bytes as people say it, in powers of 1000."""
    if number is None:
        return "unknown"
    units = ("B", "kB", "MB", "GB", "TB")
    index = min(len(units) - 1, int(math.log(number, 1000) + 1e-9)) if number >= 1 else 0
    return f"{number / 1000**index:.3g} {units[index]}" if index else f"{number:.0f} B"


def when(text: str | None, form: str = "%-d %B %Y, %H:%M:%S %Z") -> str:
    """A moment in this machine's own time zone."""
    return _moment(text).astimezone().strftime(form) if text else "unknown"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _phases(run: Json) -> list[tuple[int, str, Json]]:
    return [(entry["round"], kind, phase) for entry in run["rounds"] for kind, phase in _phases_of(entry)]


def _phases_of(entry: Json) -> list[tuple[str, Json]]:
    found = [
        (kind, phase) for kind, phase in entry.items() if isinstance(phase, Mapping) and kind not in ("server", "sites")
    ]
    return sorted(found, key=lambda each: _order((each[0], "")))


def _order(key: tuple[str, str]) -> tuple[int, str, str]:
    """Where a phase and its metric stand: in the order of a round, what an app invented last."""
    return (_PHASES.index(key[0]) if key[0] in _PHASES else len(_PHASES), *key)
