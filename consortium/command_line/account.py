"""`consortium account`: people, with a role each."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from consortium.command_line.shell import Home, Json
from consortium.command_line.shell import command as _command
from consortium.command_line.shell import out as _out
from consortium.command_line.shell import print_json as _print_json
from consortium.command_line.shell import require_new_file as _require_new_file
from consortium.command_line.shell import table as _table

account_app = typer.Typer(no_args_is_help=True, help="Give people accounts, with a role each.")


@account_app.command("invite")
def account_invite(
    name: str,
    home: Home,
    role: Annotated[str, typer.Option(help="lead, scientist, auditor or operator.")],
    out: Annotated[Path, typer.Option(help="Where to write the kit.")],
) -> None:
    """Write a one-time kit with which a person's own machine enrols."""
    from consortium.contract.private_files import write_private

    _require_new_file(out)
    answer = _command(home, "account.invite", account=name, role=role)
    write_private(out, answer["kit"].encode())
    _out.print(f"Kit for [bold]{name}[/bold] ({role}) in {out}, good for one enrolment until {answer['expires']}.")
    _out.print(f"Send it over a channel you trust. There: consortium account enrol --kit {out.name} --out ACCOUNT")


@account_app.command("enrol")
def account_enrol(
    kit: Annotated[Path, typer.Option(help="The kit from the consortium lead.")],
    out: Annotated[Path, typer.Option(help="The account's folder, which does not exist yet.")],
) -> None:
    """Enrol on your own machine: keys are made here and never leave."""
    from consortium.account_folder import enrol
    from consortium.contract.submission import owner_fingerprint

    account = asyncio.run(enrol(kit, out))
    key = account.signing_key.public_key().public_bytes_raw().hex()
    _out.print(f"Enrolled [bold]{account.account}[/bold] with {account.consortium}; the keys are in {out}.")
    _out.print(f"  your fingerprint as a study's owner  {owner_fingerprint(key)}")
    _out.print(f"Use it with --account: consortium study list --account {out}")


@account_app.command("connect")
def account_connect(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The coordinator's people_address.")],
    ca: Annotated[Path, typer.Option(help="The authority's certificate: certificates/ca.pem of the home.")],
    out: Annotated[Path, typer.Option(help="The folder, which does not exist yet.")],
) -> None:
    """Make a folder for --account that works with tokens of your identity provider, without keys of your own."""
    from consortium.account_folder import connect
    from consortium.contract.certificates import fingerprint, load_authority_certificate

    account = connect(address, ca, out)
    _out.print(f"Made {out} for {account.consortium}. Compare the authority's fingerprint with the consortium lead's:")
    _out.print(f"  {fingerprint(load_authority_certificate(account.ca_pem))}")
    _out.print(f"The token is taken from CONSORTIUM_TOKEN in the environment, else from the file {out / 'token'}.")


@account_app.command("list")
def account_list(home: Home, *, as_json: Json = False) -> None:
    """Show the accounts, their roles and the fingerprints of their signing keys."""
    rows = _command(home, "account.list")["accounts"]
    if as_json:
        _print_json(rows)
        return
    names = ["account", "role", "state", "certificate_ends", "signing_key_sha256"]
    _table(
        ["account", "role", "state", "certificate ends", "signing key (SHA-256)"],
        [[row[name] for name in names] for row in rows],
    )


@account_app.command("role")
def account_role(
    name: str, home: Home, role: Annotated[str, typer.Option(help="lead, scientist, auditor or operator.")]
) -> None:
    """Give an account another role, from its next call on."""
    _command(home, "account.role", account=name, role=role)
    _out.print(f"{name} is {role} from the next call on.")


@account_app.command("revoke")
def account_revoke(name: str, home: Home) -> None:
    """Refuse an account from its next call on, and take back a kit that nobody has used."""
    _command(home, "account.revoke", account=name)
    _out.print(f"{name} is revoked.")
