"""`consortium site`: hospitals come and go."""

from pathlib import Path
from typing import Annotated

import typer

from consortium.command_line.shell import Home, Json, Reason
from consortium.command_line.shell import command as _command
from consortium.command_line.shell import out as _out
from consortium.command_line.shell import print_json as _print_json
from consortium.command_line.shell import require_new_file as _require_new_file
from consortium.command_line.shell import table as _table
from consortium.command_line.shell import talk as _talk

site_app = typer.Typer(no_args_is_help=True, help="Invite, list, suspend and revoke hospitals.")


@site_app.command("invite")
def site_invite(
    site: str,
    home: Home,
    out: Annotated[Path, typer.Option(help="Where to write the kit.")],
    legal_entity: Annotated[
        str, typer.Option(help="Who answers for the hospital: a registered name or an LEI. Each has one certificate.")
    ] = "",
    *,
    offline_wheels: Annotated[
        bool, typer.Option("--offline-wheels", help="With everything to install it without the internet.")
    ] = False,
    python: Annotated[str, typer.Option(help="With --offline-wheels: the hospital's Python, 3.11 or 3.12.")] = "3.11",
    processor: Annotated[
        str, typer.Option(help="With --offline-wheels: the hospital's processor, x86_64 or aarch64.")
    ] = "x86_64",
) -> None:
    """Write a one-time enrolment kit for a hospital."""
    from consortium.contract.kit import write_kit_bytes

    _require_new_file(out)
    if offline_wheels:
        _invite_offline(site, home, out, legal_entity=legal_entity, python=python, processor=processor)
        return
    answer = _command(home, "site.invite", site=site, legal_entity=legal_entity)
    write_kit_bytes(out, bytes.fromhex(answer["kit"]))
    _out.print(f"Kit for [bold]{site}[/bold] in {out}, good for one enrolment until {answer['expires']}.")
    _out.print(f"Send it over a channel you trust. There: site-agent enrol --kit {out.name} --home HOME")


def _invite_offline(site: str, home: Path, out: Path, *, legal_entity: str, python: str, processor: str) -> None:
    """The kit with all wheels beside it; they are fetched first, so that a token is given out only if that works."""
    from consortium.contract.names import SiteId
    from consortium.offline_kit import PROCESSORS, PYTHONS, Machine, wheelhouse, write_offline_kit

    if python not in PYTHONS or processor not in PROCESSORS:
        allowed = f"--python {' or '.join(PYTHONS)}, --processor {' or '.join(PROCESSORS)}"
        raise typer.BadParameter(f"found Python {python} on {processor}; allowed: {allowed}")
    _talk.print("Fetching wheels with pip, as it is configured here ...")
    with wheelhouse(Machine(python=python, processor=processor)) as house:
        answer = _command(home, "site.invite", site=site, legal_entity=legal_entity)
        sha256 = write_offline_kit(out, house, site=SiteId(site), kit=bytes.fromhex(answer["kit"]))
    _out.print(f"Kit for [bold]{site}[/bold] with all it installs in {out}, good until {answer['expires']}.")
    _out.print(f"SHA-256 of the archive, to be compared by telephone: {sha256}")
    _out.print("Bring it over a way you trust. There: unzip it, read README.txt, and sh install.sh")


@site_app.command("list")
def site_list(home: Home, *, as_json: Json = False) -> None:
    """Show the enrolled hospitals and their key fingerprints."""
    from consortium.contract.certificates import key_fingerprint

    rows = _command(home, "site.list")["sites"]
    if as_json:
        _print_json(rows)
        return
    _table(
        ["site", "state", "connected", "legal entity", "TLS key (SHA-256)", "signing key", "ECDSA key (SHA-256)"],
        [
            [
                r["site"],
                r["state"],
                "yes" if r["connected"] else "",
                r["legal_entity"],
                r["spki_sha256"],
                r["signing_key"],
                key_fingerprint(r["ecdsa_key"]),
            ]
            for r in rows
        ],
    )


@site_app.command("revoke")
def site_revoke(site: str, home: Home, reason: Reason = "revoked by the operator") -> None:
    """Refuse a hospital's certificates for good; it comes back with a new kit and new keys."""
    _command(home, "site.revoke", site=site, reason=reason)
    _out.print(f"{site} is revoked; its session, if it had one, is closed.")


@site_app.command("suspend")
def site_suspend(site: str, home: Home, reason: Reason) -> None:
    """Refuse a hospital's calls until it is reinstated; its keys and its place in studies stay."""
    _command(home, "site.suspend", site=site, reason=reason)
    _out.print(f"{site} is suspended; its session, if it had one, is closed, and rounds go on without it.")


@site_app.command("reinstate")
def site_reinstate(site: str, home: Home) -> None:
    """Let a suspended hospital take part again; its agent comes back by itself."""
    _command(home, "site.reinstate", site=site)
    _out.print(f"{site} may take part again; its agent comes back within five minutes.")
