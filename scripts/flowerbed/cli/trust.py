"""Commands between organisations: who is let in, with which key, and what happened."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flowerbed import audit, joining, kit, leaving, machines, revocation, rotation, sites, turn
from flowerbed.cli.shared import AsJson, Name, Option, SiteName, escape, print_result
from flowerbed.console import Steps
from flowerbed.errors import WorkFailed
from flowerbed.federation import DEFAULT_PYTHON, find

app = typer.Typer()
kit_app = typer.Typer(help="Kits: one file by which a hospital joins without a login for you.", no_args_is_help=True)
app.add_typer(kit_app, name="kit")
site_app = typer.Typer(help="Sites: who is let in, and who is not.", no_args_is_help=True)
app.add_typer(site_app, name="site")
audit_app = typer.Typer(
    help="What happened: in the federation's audit trail, in the cloud account.", no_args_is_help=True
)
app.add_typer(audit_app, name="audit")


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
    print_result(as_json, dataclasses.asdict(made), lambda console: _tell_of_kit(console, made))


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
    with turn.taken(find(federation), "site approve"), steps.step("approve") as step:
        site = joining.approve(find(federation), request, fingerprint, replace=replace, progress=step.now)
        step.result = f"{site.name} is let in"
    if wait:
        with steps.step("online") as step:
            joining.wait(find(federation), site, wait)
            step.result = f"{site.name} is online"
    print_result(as_json, dataclasses.asdict(site), lambda console: None)


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

    print_result(as_json, {"sites": [dataclasses.asdict(one) for one in found]}, people)


@site_app.command("block")
def site_block(name: SiteName, federation: Option = "lab", as_json: AsJson = False) -> None:
    """Refuse a site at the gateway, at once; the others go on, and `flowerbed site unblock` lets it in again."""
    with turn.taken(find(federation), "site block"):
        names = sites.block(find(federation), name)
    _print_blocked(names, f"{name} is blocked", as_json)


@site_app.command("unblock")
def site_unblock(name: SiteName, federation: Option = "lab", as_json: AsJson = False) -> None:
    """Let a site in again that was blocked."""
    with turn.taken(find(federation), "site unblock"):
        names = sites.unblock(find(federation), name)
    _print_blocked(names, f"{name} is let in again", as_json)


@site_app.command("revoke")
def site_revoke(
    site: Annotated[str, typer.Argument(metavar="SITE", help="The site's name.")],
    federation: Option = "lab",
    reason: Annotated[str, typer.Option(help="Why; it stands in revoked.json and in the audit trail.")] = "",
    as_json: AsJson = False,
) -> None:
    """Turn a site away at once; the keys that it ever had are let in by nobody again."""
    with turn.taken(find(federation), "site revoke"):
        revoked = revocation.revoke(find(federation), site, reason, Steps())
    print_result(as_json, {"revoked": [dataclasses.asdict(one) for one in revoked]}, lambda console: None)


@site_app.command("remove")
def site_remove(
    name: SiteName,
    federation: Option = "lab",
    purge: Annotated[
        bool, typer.Option("--purge", help="Take every file, user and unit off its machine that was made there.")
    ] = False,
    packages: Annotated[
        bool, typer.Option("--packages", help="With --purge: packages that it installed, too.")
    ] = False,
    wait: Annotated[
        int, typer.Option(help="Seconds that rounds under way may take; 0 does not wait for them.", min=0)
    ] = leaving.WAIT_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Take a site out of the federation between two rounds: unregister it, stop it, and it stays out."""
    with turn.taken(find(federation), "site remove"):
        gone = leaving.remove(find(federation), name, Steps(), purge=purge, packages=packages, wait=wait)

    def people(console: Console) -> None:
        for line in gone.removed:
            console.print(f"  removed {escape(line)}", soft_wrap=True)
        if gone.packages:
            console.print(f"{name} keeps the packages {', '.join(gone.packages)}, which were installed for Flowerbed")
        for line in gone.left_to_do:
            console.print(escape(line), soft_wrap=True)

    print_result(as_json, dataclasses.asdict(gone), people)


@site_app.command("add")
def site_add(name: SiteName, federation: Option = "lab", as_json: AsJson = False) -> None:
    """Let a site that was removed join again, by the next `up`."""
    with turn.taken(find(federation), "site add"):
        leaving.add(find(federation), name)
    said = f"`flowerbed up {federation}` lets {name} in again"
    print_result(as_json, {"site": name}, lambda console: console.print(said))


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
    with turn.taken(find(federation), "rotate"):
        done = rotation.rotate(
            find(federation), Steps(), what, site=site, wait=wait, sites_joined_by_kit_are_ready=kits_done
        )
    print_result(as_json, {"federation": find(federation).name, "changes": done}, lambda console: None)


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
    print_result(as_json, trail.to_json(), lambda console: _trail_lines(console, trail))
    if trail.unreachable:
        raise typer.Exit(WorkFailed.exit_code)


@audit_app.command("cloud")
def audit_cloud(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Compare the cloud account with what Terraform declares, rules that somebody added included.

    Exit code 0 only if nothing differs.
    """
    found = machines.audit(find(federation))

    def people(console: Console) -> None:
        for one in found:
            line = f"{one.resource}: {one.what} ({one.id}): declared {one.declared}, found {one.found}"
            console.print(escape(line), soft_wrap=True)
        if not found:
            console.print("the account is as Terraform declares it")

    print_result(as_json, {"differences": [dataclasses.asdict(one) for one in found]}, people)
    if found:
        raise typer.Exit(1)


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
    from flowerbed import dossier  # noqa: PLC0415 - its libraries take a tenth of a second, and no other command needs them

    made = dossier.collect(find(federation), site)
    page = out or Path("-".join(["dossier", made.federation, *([site] if site else [])]) + ".html")
    materials = sbom or page.with_suffix(".cdx.json")
    page.write_text(made.to_html(), encoding="utf-8")
    materials.write_text(made.to_cyclonedx(), encoding="utf-8")
    print_result(as_json, made.to_json(), lambda console: console.print(f"{page}\n{materials}", soft_wrap=True))


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


def _print_blocked(names: list[str], said: str, as_json: bool) -> None:
    print_result(as_json, {"blocked": names}, lambda console: console.print(said))


def _trail_lines(console: Console, trail: audit.Trail) -> None:
    for one in trail.entries:
        line = f"{one.time:%Y-%m-%d %H:%M:%S}Z {one.host} {one.event}: {one.message} ({one.fields.get('by', one.user)})"
        console.print(escape(line), soft_wrap=True)
    for host, count in trail.forged.items():
        console.print(f"[yellow]{host}: left out what others than Flower's services wrote: {count}[/]")
    for reason in trail.unreachable.values():
        console.print(f"[red]{escape(reason)}[/]", soft_wrap=True)
