"""Who may see the dashboard, and under which name they act, until there is a sign-in."""

import getpass
import ipaddress
import unicodedata

import streamlit as st

from common.errors import ConfigurationError
from common.reading import audit
from dashboard.connection import transaction

NAME_LENGTH = 64  # of audit_event.actor
_ACTOR = "actor"


def require_loopback(host: str | None) -> None:
    """Refuse to serve on an address that others can reach: there is no sign-in yet.

    Raises:
        ConfigurationError: the address is not this machine's own.
    """
    if host == "localhost":
        return
    try:
        if host and ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise ConfigurationError(
        f"FIRSTREAD_DASHBOARD_HOST: {host or 'any address'} can be reached from other machines and "
        "the dashboard has no sign-in yet; set it to 127.0.0.1 and come in by an SSH tunnel"
    )


def actor() -> str:
    """Give the name that this session's steps are audited under.

    It is the account that the dashboard runs as until the reader types another. Nobody checks it.
    """
    return st.session_state.get(_ACTOR) or account()


def account() -> str:
    """Give the account that this process runs as."""
    try:
        return getpass.getuser()[:NAME_LENGTH]
    except (KeyError, OSError):  # a container's user id without a name
        return "unknown"


def rename_actor(name: str) -> bool:
    """Act under another name from now on. False if nothing of the name is left after cleaning."""
    cleaned = clean_name(name)
    if not cleaned:
        return False
    before = actor()
    if cleaned != before:
        with transaction() as session:
            audit(session, cleaned, "actor_named", before=before, account=account())
    st.session_state[_ACTOR] = cleaned
    return True


def clean_name(name: str) -> str:
    """Take out what cannot be seen, and shorten to what the ledger keeps."""
    visible = "".join(
        character
        for character in name
        if unicodedata.category(character)[0] not in "CZ" or character == " "
    )
    return " ".join(visible.split())[:NAME_LENGTH]
