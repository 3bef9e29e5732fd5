"""`site-agent peers`: the other hospitals' keys."""

import typer

from site_agent.commands.shell import EXIT_REFUSED, Home, Json
from site_agent.commands.shell import out as _out
from site_agent.commands.shell import print_json as _print_json
from site_agent.commands.shell import table as _table
from site_agent.commands.shell import talk as _talk

peers_app = typer.Typer(no_args_is_help=True, help="The other hospitals' keys as this agent knows them.")


@peers_app.command("list")
def peers_list(home: Home, *, as_json: Json = False) -> None:
    """Show the other hospitals' keys, to compare by telephone."""
    from consortium.contract.certificates import key_fingerprint
    from site_agent.app import open_store

    store = open_store(home)
    rows, changes = store.peers(), store.followed_changes()
    changed = {s: [c.change.at for c in changes if c.change.site == s] for s, *_ in rows}
    if as_json:
        _print_json(
            [
                {"site": s, "spki_sha256": t, "signing_key": k, "ecdsa_key": e, "keys_changed": changed[s]}
                for s, t, k, e in rows
            ]
        )
        return
    table = _table("site", "TLS key (SHA-256)", "signing key", "ECDSA key (SHA-256)", "keys changed")
    for site, tls_key, signing_key, ecdsa_key in rows:
        days = ", ".join(at[:10] for at in changed[site])
        table.add_row(site, tls_key, signing_key, key_fingerprint(ecdsa_key), days)
    _out.print(table)


@peers_app.command("forget")
def peers_forget(site: str, home: Home) -> None:
    """Accept the certificate a hospital shows next. Compare fingerprints with it first."""
    from site_agent.app import open_store

    if not open_store(home).forget_peer(site):
        _talk.print(f"[bold red]error:[/bold red] no hospital named {site} is known here")
        raise typer.Exit(EXIT_REFUSED)
    _out.print(f"Forgot {site}; the next certificate it shows is remembered.")
