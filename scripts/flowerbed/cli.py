"""The command line: a thin skin over the layers' functions."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flowerbed import (
    __version__,
    audit,
    check,
    control,
    deploy,
    doctor,
    dossier,
    joining,
    kit,
    machines,
    release,
    revocation,
    rotation,
    runs,
    sites,
    status,
)
from flowerbed.console import Steps
from flowerbed.errors import EnvironmentLacks, FlowerbedError, UsageError, WorkFailed
from flowerbed.federation import DEFAULT_PYTHON, Federation, every, find

app = typer.Typer(
    name="flowerbed",
    help="Flower federations from bare machines to a finished training run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
release_app = typer.Typer(help="Releases: Flower and the apps' dependencies, locked by hash.", no_args_is_help=True)
app.add_typer(release_app, name="release")
inventory_app = typer.Typer(help="Inventories: what a federation's files say about its machines.", no_args_is_help=True)
app.add_typer(inventory_app, name="inventory")
kit_app = typer.Typer(help="Kits: one file by which a hospital joins without a login for you.", no_args_is_help=True)
app.add_typer(kit_app, name="kit")
site_app = typer.Typer(help="Sites: who is let in, and who is not.", no_args_is_help=True)
app.add_typer(site_app, name="site")
app_app = typer.Typer(help="Apps: what a site is asked to approve.", no_args_is_help=True)
app.add_typer(app_app, name="app")
audit_app = typer.Typer(
    help="What happened: in the federation's audit trail, in the cloud account.", no_args_is_help=True
)
app.add_typer(audit_app, name="audit")

_DEFAULT = "FLOWERBED_FEDERATION"
Name = Annotated[
    str, typer.Argument(metavar="[FED]", envvar=_DEFAULT, help="A folder under inventories/, or a folder's path.")
]
Option = Annotated[str, typer.Option("--federation", "-f", metavar="FED", envvar=_DEFAULT, help="The federation.")]
SiteName = Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def main() -> None:
    """Run the command line with honest exit codes and no tracebacks for what a user can cause."""
    try:
        code = app(standalone_mode=False)  # without standalone mode, typer.Exit's code is returned
        sys.exit(code if isinstance(code, int) else 0)
    except FlowerbedError as error:
        _fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted: the same command goes on from here", 130)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        _fail(usage(), 2)


def _fail(message: str, code: int) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}))
    Console(stderr=True, highlight=False).print(f"[red]error:[/] {_escape(message)}", soft_wrap=True)
    sys.exit(code)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _print(as_json: bool, document: Any, people: Callable[[Console], None]) -> None:
    if as_json:
        print(json.dumps(document, indent=2, default=str))
    else:
        people(Console(highlight=False))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def up(
    federation: Name = "lab",
    check: Annotated[bool, typer.Option("--check", help="Show what would change; change nothing.")] = False,
    boot_seconds: Annotated[
        float, typer.Option(help="How long a new machine in a cloud may take until it can be reached.", min=0)
    ] = machines.BOOT_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Bring a federation up: machines, hosts, registration. A second call changes nothing."""
    _refuse_without_root(find(federation))
    done = deploy.up(find(federation), Steps(), check=check, boot_seconds=boot_seconds)
    if check:
        said = f"{done.machines_changed} machines and {sum(done.hosts_changed.values())} tasks would change"
    elif not done.complete:
        said = f"the machine of {', '.join(done.sites)} is there; it trains when the consortium has let it in"
    else:
        said = f"[green]{done.federation}[/] can train: {len(done.sites)} sites, release {done.release}"
    _print(as_json, dataclasses.asdict(done), lambda console: console.print(said))


@app.command()
def down(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Take away everything that `up` made, and nothing else."""
    _refuse_without_root(find(federation))
    count = deploy.down(find(federation), Steps())
    _print(as_json, {"federation": find(federation).name, "machines": count}, lambda console: None)


@app.command()
def rotate(
    federation: Name = "lab",
    keys: Annotated[bool, typer.Option("--keys", help="The sites' node keys, and those of their loopback.")] = False,
    certificates: Annotated[
        bool,
        typer.Option("--certificates", help="The coordinator's keys and certificates, and its SuperExec's secret."),
    ] = False,
    ca: Annotated[bool, typer.Option("--ca", help="The CA; hosts trust the old and the new one in between.")] = False,
    site: Annotated[str, typer.Option(help="With --keys: this site alone.")] = "",
    wait: Annotated[int, typer.Option(help="Seconds that rounds under way may take.", min=1)] = rotation.WAIT_SECONDS,
    kits_done: Annotated[
        bool, typer.Option("--kits-done", help="With --ca: sites that joined by kit have used their new one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make keys and certificates anew, all of them unless some are named; no round of a run fails."""
    everything = not (keys or certificates or ca)
    what = rotation.What(keys or everything, certificates or everything, ca or everything)
    done = rotation.rotate(
        find(federation), Steps(), what, site=site, wait=wait, sites_joined_by_kit_are_ready=kits_done
    )
    _print(as_json, {"federation": find(federation).name, "changes": done}, lambda console: None)


@site_app.command("revoke")
def site_revoke(
    site: Annotated[str, typer.Argument(metavar="SITE", help="The site's name.")],
    federation: Option = "lab",
    reason: Annotated[str, typer.Option(help="Why; it stands in revoked.json and in the audit trail.")] = "",
    as_json: AsJson = False,
) -> None:
    """Turn a site away at once; the keys that it ever had are let in by nobody again."""
    revoked = revocation.revoke(find(federation), site, reason, Steps())
    _print(as_json, {"revoked": [dataclasses.asdict(one) for one in revoked]}, lambda console: None)


@audit_app.command("cloud")
def audit_cloud(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Compare the cloud account with what Terraform declares, rules that somebody added included.

    Exit code 0 only if nothing differs.
    """
    found = machines.audit(find(federation))

    def people(console: Console) -> None:
        for one in found:
            line = f"{one.resource}: {one.what} ({one.id}): declared {one.declared}, found {one.found}"
            console.print(_escape(line), soft_wrap=True)
        if not found:
            console.print("the account is as Terraform declares it")

    _print(as_json, {"differences": [dataclasses.asdict(one) for one in found]}, people)
    if found:
        raise typer.Exit(1)


@audit_app.command("log")
def audit_log(
    federation: Name = "lab",
    since: Annotated[str | None, typer.Option(metavar="TIME", help="2026-11-22T10:00, or 36h, 7d ago.")] = None,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="What concerns this site alone.")] = None,
    event: Annotated[str | None, typer.Option(help="One kind: run.finished, or run for all of its kinds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who joined, ran what, was refused, rotated or revoked, from the journals of all hosts.

    Exit code 0 only if every host answered.
    """
    begin = audit.moment(since) if since else None
    trail = audit.read(find(federation), since=begin, site=site, event=event)
    _print(as_json, trail.to_json(), lambda console: _trail_lines(console, trail))
    if trail.unreachable:
        raise typer.Exit(WorkFailed.exit_code)


@app.command("dossier")
def dossier_(
    federation: Name = "lab",
    site: Annotated[str | None, typer.Option(metavar="NAME", help="For this site alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="The page; dossier-FED.html unless named.")] = None,
    sbom: Annotated[Path | None, typer.Option(help="The bill of materials; beside the page unless named.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page for a hospital's IT: ports, users, files, keys, sandbox, versions, hashes; and a CycloneDX list.

    No host is touched: the facts are what the roles would do with this federation's configuration.
    """
    made = dossier.collect(find(federation), site)
    page = out or Path("-".join(["dossier", made.federation, *([site] if site else [])]) + ".html")
    materials = sbom or page.with_suffix(".cdx.json")
    page.write_text(made.to_html(), encoding="utf-8")
    materials.write_text(made.to_cyclonedx(), encoding="utf-8")
    _print(as_json, made.to_json(), lambda console: console.print(f"{page}\n{materials}", soft_wrap=True))


@app.command()
def run(
    application: Annotated[str | None, typer.Argument(metavar="APP", help="A folder, or git+URL@REF.")] = None,
    federation: Option = "lab",
    config: Annotated[list[str] | None, typer.Option("-c", metavar="KEY=VALUE", help="Override run config.")] = None,
    server_code: Annotated[Path | None, typer.Option(help="A Python file with a ServerApp `app`.")] = None,
    client_code: Annotated[Path | None, typer.Option(help="A Python file with a ClientApp `app`.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the run is submitted.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Stop the run after so many seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run an app: submit, follow, bring the results to runs/<date>/<time>/.

    Exit code 0 only if the run completed and no expected reply was missing or an error.
    """
    with contextlib.ExitStack() as stack:
        if server_code and client_code and application is None:
            values = runs.source.values(config or [])
            opened = stack.enter_context(runs.source.inline(server_code, client_code, values))
            overrides: dict[str, Any] = {}
        elif application is not None and not server_code and not client_code:
            opened = stack.enter_context(runs.source.opened(application))
            overrides = dict(runs.check(opened.folder).overrides(config or []))
        else:
            raise UsageError("name what to run: an APP, or both --server-code and --client-code")
        way = stack.enter_context(control.open_way(find(federation)))
        progress = stack.enter_context(_progress(way, as_json))
        result = runs.submit_and_follow(
            way.connection,
            way.shell,
            opened.folder,
            overrides,
            deployed=way.deployed,
            expected_sites=len(way.deployed.sites) or None,
            timeout=timeout,
            detach=detach,
            origin=opened.origin,
            on_event=progress,
        )
    _end_of_run(result, as_json)


@app.command()
def logs(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    federation: Option = "lab",
    as_json: AsJson = False,
) -> None:
    """Follow a run from its first line, and bring its results home when it ends."""
    with control.open_way(find(federation)) as way, _progress(way, as_json) as progress:
        result = runs.follow(way.connection, way.shell, run_id, deployed=way.deployed, on_event=progress)
    _end_of_run(result, as_json)


@app.command("runs")
def runs_(
    federation: Name = "lab",
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs of a federation."""
    with control.open_way(find(federation)) as way, runs.control(way.connection) as api:
        found = api.runs(limit)
    _print(as_json, {"runs": [dataclasses.asdict(one) for one in found]}, lambda console: _runs_table(console, found))


@app.command()
def stop(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    federation: Option = "lab",
    as_json: AsJson = False,
) -> None:
    """Stop a run."""
    with control.open_way(find(federation)) as way, runs.control(way.connection) as api:
        api.stop(run_id)
    _print(as_json, {"stopped": run_id}, lambda console: console.print(f"run {run_id} is stopped"))


@app.command("status")
def status_(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Show endpoints, health, nodes, the latest runs and the certificates' days left.

    Exit code 0 only if every unit runs and every site is online.
    """
    known = status.look(find(federation))
    _print(as_json, known.to_json(), lambda console: _status_tables(console, known))
    if not known.healthy:
        raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def connect(context: typer.Context, federation: Name = "lab") -> None:
    """Run Flower's own command line against the federation: connect FED -- flwr list."""
    words = context.args or ["flwr", "supernode", "list"]
    with control.open_way(find(federation)) as way:
        code = control.run_flwr(way, words)
    raise typer.Exit(code)


@app.command("doctor")
def doctor_(federation: Name = "", as_json: AsJson = False) -> None:
    """Say what this machine lacks for which platform, what git should not have, and the command that mends it."""
    findings = doctor.examine() + doctor.examine_secrets([find(federation)] if federation else every())

    def people(console: Console) -> None:
        table = Table(box=None, header_style="dim")
        for column in ("platform", "", "", "remedy"):
            table.add_column(column)
        for finding in findings:
            mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
            table.add_row(finding.platform, mark, finding.what, finding.remedy)
        console.print(table)

    _print(as_json, {"findings": [dataclasses.asdict(finding) for finding in findings]}, people)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)


@release_app.command("build")
def release_build(
    federation: Name = "lab",
    python: Annotated[str, typer.Option(help="The hosts' Python.")] = DEFAULT_PYTHON,
    as_json: AsJson = False,
) -> None:
    """Build the federation's release: one archive that its hosts install without a network."""
    steps = Steps()
    with steps.step("release") as step:
        built = release.of(find(federation), step.now, python)
        step.result = built.id
    _print(
        as_json,
        {"id": built.id, "archive": str(built.archive), "packages": built.packages},
        lambda console: console.print(str(built.archive), soft_wrap=True),
    )


@inventory_app.command("check")
def inventory_check(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Say everything that is wrong in a federation's files, one line each; changes nothing.

    Exit code 2 if there is anything.
    """
    found = check.examine(find(federation))

    def people(console: Console) -> None:
        for finding in found:
            console.print(str(finding), soft_wrap=True, markup=False)
        if not found:
            console.print(f"{find(federation).name}: nothing is wrong")

    _print(as_json, {"federation": find(federation).name, "findings": [one.to_json() for one in found]}, people)
    if found:
        raise typer.Exit(UsageError.exit_code)


@site_app.command("block")
def site_block(name: SiteName, federation: Option = "lab", as_json: AsJson = False) -> None:
    """Refuse a site at the gateway, at once; the others go on, and `flowerbed site unblock` lets it in again."""
    _print_blocked(sites.block(find(federation), name), f"{name} is blocked", as_json)


@site_app.command("unblock")
def site_unblock(name: SiteName, federation: Option = "lab", as_json: AsJson = False) -> None:
    """Let a site in again that was blocked."""
    _print_blocked(sites.unblock(find(federation), name), f"{name} is let in again", as_json)


def _print_blocked(names: list[str], said: str, as_json: bool) -> None:
    _print(as_json, {"blocked": names}, lambda console: console.print(said))


@kit_app.command("build")
def kit_build(
    site: Annotated[str, typer.Option(help="The hospital's name in the federation.")],
    federation: Name = "lab",
    out: Annotated[Path | None, typer.Option(help="The file to write; <site>.kit here if not given.")] = None,
    python: Annotated[str, typer.Option(help="The Python of the hospital's machine.")] = DEFAULT_PYTHON,
    days: Annotated[int, typer.Option(help="For how long the kit can be used.")] = 30,
    preset: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting, which the hospital may change.")
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="A YAML file with such settings.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the file by which a hospital's own administrator joins."""
    steps = Steps()
    given = kit.read_settings(preset or [], settings)
    with steps.step("kit") as step:
        made = kit.build(find(federation), site, out=out, python=python, days=days, settings=given, progress=step.now)
        step.result = f"{made.file}, good until {made.expires[:10]}"
    _print(as_json, dataclasses.asdict(made), lambda console: _tell_of_kit(console, made))


@site_app.command("approve")
def site_approve(
    request: Annotated[Path, typer.Argument(metavar="FILE", help="The request that the hospital sent.")],
    fingerprint: Annotated[str, typer.Option(metavar="SHA256:...", help="As the hospital read it out to you.")],
    federation: Option = "lab",
    replace: Annotated[bool, typer.Option("--replace", help="The site's machine is new, and so is its key.")] = False,
    wait: Annotated[int, typer.Option(help="Seconds to wait until it is online; 0 does not wait.", min=0)] = 120,
    as_json: AsJson = False,
) -> None:
    """Let a hospital in that joined by kit: check its request, register its key, see it online."""
    steps = Steps()
    with steps.step("approve") as step:
        site = joining.approve(find(federation), request, fingerprint, replace=replace, progress=step.now)
        step.result = f"{site.name} is let in"
    if wait:
        with steps.step("online") as step:
            joining.wait(find(federation), site, wait)
            step.result = f"{site.name} is online"
    _print(as_json, dataclasses.asdict(site), lambda console: None)


@site_app.command("list")
def site_list(federation: Name = "lab", as_json: AsJson = False) -> None:
    """List the sites: those that are reached by SSH, those that joined by kit, and kits that wait for a request."""
    found = joining.sites(find(federation))

    def people(console: Console) -> None:
        table = Table(box=None, header_style="dim")
        for column in ("site", "joined", "since", "key"):
            table.add_column(column)
        for one in found:
            table.add_row(one.name, one.way, one.since, one.fingerprint)
        console.print(table)

    _print(as_json, {"sites": [dataclasses.asdict(one) for one in found]}, people)


def _tell_of_kit(console: Console, made: kit.Kit) -> None:
    name = Path(made.file).name
    for line in (
        f"Send {made.file} to {made.site}. Its administrator runs, as root, on the hospital's machine:",
        "",
        f"  sha256sum {name}",
        f"  tar -xf {name}",
        f"  cd {made.site}",
        f"  ./join --ca-fingerprint {made.ca_fingerprint} --data /srv/hospital --check",
        "",
        "and the last line again without --check. Tell these two by another way than the file, as on the phone:",
        "",
        f"  sum of the file        {made.sha256}",
        f"  fingerprint of the CA  {made.ca_fingerprint}",
    ):
        console.print(line, soft_wrap=True, markup=False)


def _progress(way: control.Way, as_json: bool) -> Any:
    """The progress display; nothing at all where the caller wants one JSON document."""
    if as_json:
        return contextlib.nullcontext()
    names = {node_id: site for site, node_id in way.deployed.sites.items()}
    return runs.Progress(Console(stderr=True, highlight=False), names)


def _end_of_run(result: runs.RunResult, as_json: bool) -> None:
    _print(as_json, result.to_json(), lambda console: None)
    raise typer.Exit(result.exit_code)


Reference = Annotated[str, typer.Argument(metavar="APP", help="A folder, git+URL@REF, or a .fab file.")]


@app_app.command("hash")
def app_hash(application: Reference, as_json: AsJson = False) -> None:
    """Print the hash that a site approves, as a line for its file approved_apps."""
    packed = runs.review.read(application)
    document = {"hash": packed.hash, "app": packed.app, "version": packed.version, "bytes": packed.bytes}
    _print(as_json, document, lambda console: print(f"{packed.hash} # {packed.app} {packed.version}"))


@app_app.command("review")
def app_review(
    application: Reference,
    show: Annotated[bool, typer.Option("--show", help="Print the files' text as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """List an app's files as they would travel: size, sha256, and on request their text."""
    packed = runs.review.read(application)
    files = [dataclasses.asdict(file) for file in packed.files]
    document = {**dataclasses.asdict(packed), "files": files if show else [_without_text(file) for file in files]}

    def people(console: Console) -> None:
        print(f"{packed.app} {packed.version}, {packed.bytes} bytes packed, hash {packed.hash}")
        for file in packed.files:
            print(f"{file.sha256}  {file.bytes:>8}  {runs.review.visible(file.path.encode())}")
        for file in packed.files if show else []:
            print(f"\n=== {runs.review.visible(file.path.encode())} ===\n{file.text}")

    _print(as_json, document, people)


def _without_text(file: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key != "text"}


def _runs_table(console: Console, found: list[runs.Run]) -> None:
    table = Table(box=None, header_style="dim")
    for column in ("run", "app", "status", "submitted", "seconds"):
        table.add_column(column)
    for one in found:
        seconds = f"{(one.finished - one.submitted).total_seconds():.0f}" if one.finished and one.submitted else ""
        submitted = f"{one.submitted:%Y-%m-%d %H:%M:%S}" if one.submitted else ""
        table.add_row(one.run_id, f"{one.app} {one.version}", one.status, submitted, seconds)
    console.print(table)


def _status_tables(console: Console, known: status.Status) -> None:
    console.print(f"[bold]{known.federation}[/]  gateway {known.gateway}, release {known.release}")
    table = Table(box=None, header_style="dim")
    for column in ("host", "role", "address", "units", "node", "certificate"):
        table.add_column(column)
    for host in known.hosts:
        units = "[green]running[/]" if host.healthy else f"[red]{host.problem}[/]"
        units = "joined by kit" if host.by_kit else units
        node = {"online": "[green]online[/]"}.get(host.node, f"[yellow]{host.node}[/]") if host.role == "site" else ""
        days = f"{host.certificate_days} days" if host.certificate_days is not None else ""
        if host.warning:
            days = f"[{'red' if (host.certificate_days or 0) <= status.ALARM_DAYS else 'yellow'}]{days}[/]"
        table.add_row(host.name, host.role, host.address, units, node, days)
    console.print(table)
    if known.runs:
        _runs_table(console, known.runs)


def _trail_lines(console: Console, trail: audit.Trail) -> None:
    for one in trail.entries:
        line = f"{one.time:%Y-%m-%d %H:%M:%S}Z {one.host} {one.event}: {one.message} ({one.fields.get('by', one.user)})"
        console.print(_escape(line), soft_wrap=True)
    for host, count in trail.forged.items():
        console.print(f"[yellow]{host}: left out what others than Flower's services wrote: {count}[/]")
    for reason in trail.unreachable.values():
        console.print(f"[red]{_escape(reason)}[/]", soft_wrap=True)


def _refuse_without_root(federation: Federation) -> None:
    missing = [f for f in doctor.examine() if not f.ok and f.platform in ("all", _platform(federation))]
    if missing:
        raise EnvironmentLacks(f"this machine lacks {missing[0].what}: {missing[0].remedy}")


def _platform(federation: Federation) -> str:
    return federation.platform_file.stem if federation.platform_file else "existing"
