"""Field types that several files share: names, lines of text, addresses, durations."""

import re
from typing import Annotated

from annotated_types import Gt, Le
from pydantic import AfterValidator

from consortium.contract.names import is_name
from consortium.contract.schema import Refused, Words

_COLUMN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HOST_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_HOST_SIX = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]")
_VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){1,2}")
LINE_CHARACTERS_MAX = 200
PROSE_CHARACTERS_MAX = 4000


def _site_name(text: str) -> str:
    if not is_name(text):
        raise Refused
    return text


def _study_name(text: str) -> str:
    if not is_name(text, longest=64):
        raise Refused
    return text


def _column(text: str) -> str:
    if _COLUMN.fullmatch(text) is None:
        raise Refused
    return text


def _line(text: str) -> str:
    # Shown on stewards' terminals: text from a stranger must not move the cursor or reverse the reading direction.
    if not text.strip() or len(text) > LINE_CHARACTERS_MAX or not text.isprintable():
        raise Refused
    return text


def _prose(text: str) -> str:
    if not text.strip() or len(text) > PROSE_CHARACTERS_MAX or not text.replace("\n", "").isprintable():
        raise Refused
    return text


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    known = _HOST_SIX.fullmatch(host) is not None or (
        len(host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in host.split("."))
    )
    if not known or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise Refused
    return text


def _relative(text: str) -> str:
    # Never out of the home, and never an option or a home directory to somebody's shell.
    parts = text.split("/")
    if not text.isprintable() or len(text) > 500 or any(part in ("", ".", "..") or part[0] in "-~" for part in parts):
        raise Refused
    return text


def _path(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 1000:
        raise Refused
    return text


def _version(text: str) -> str:
    if _VERSION.fullmatch(text) is None:
        raise Refused
    return text


SiteName = Annotated[
    str,
    AfterValidator(_site_name),
    Words("a site name: 3 to 40 characters of a-z, 0-9 and '-', starting with a letter"),
]
StudyName = Annotated[
    str,
    AfterValidator(_study_name),
    Words("a study name: 3 to 64 characters of a-z, 0-9 and '-', starting with a letter"),
]
ClientAlgoName = Annotated[
    str, AfterValidator(_study_name), Words("a name of a client algorithm: 3 to 64 characters of a-z, 0-9 and '-'")
]
ColumnName = Annotated[str, AfterValidator(_column), Words("a column name: 1 to 64 letters, digits, '_', '.' and '-'")]
Line = Annotated[str, AfterValidator(_line), Words(f"one line of text, at most {LINE_CHARACTERS_MAX} characters")]
Prose = Annotated[str, AfterValidator(_prose), Words(f"text, at most {PROSE_CHARACTERS_MAX} characters")]
Address = Annotated[
    str, AfterValidator(_address), Words("host:port, such as hub.example.org:8443 or [2001:db8::1]:8443")
]
RelativePath = Annotated[
    str, AfterValidator(_relative), Words("a path below this file's folder, such as log or data/log")
]
FilePath = Annotated[
    str, AfterValidator(_path), Words("a path, absolute or relative to this file's folder, at most 1000 characters")
]
Version = Annotated[str, AfterValidator(_version), Words('a version in quotes, such as "0.1.0"')]
Seconds = Annotated[float, Gt(0), Le(604_800)]
"""A duration, at most a week."""
