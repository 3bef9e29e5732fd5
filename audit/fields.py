"""What a field of an entry may hold: each rule reads JSON strictly and writes it back the one way it is spelled.

A rule is attached to a field's annotation (`Digest = Annotated[str, Pattern(...)]`); `audit.entries` applies it both
when an entry is built and when one is parsed, so that no other value can ever be logged.
"""

import math
import re
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from typing import Annotated, Protocol, TypeAlias, get_args, get_type_hints

from audit.errors import EntryRefused

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

INTEGER_MAX = 2**53 - 1
"""Beyond this some JSON readers lose digits, and a lost digit would break a count."""


class Rule(Protocol):
    """How one field is read and written."""

    def read(self, path: str, value: object) -> object:
        """The Python value for a JSON value or a Python value; raises EntryRefused."""

    def write(self, value: object) -> Json:
        """The JSON value of a Python value that was read before."""


_RULES: dict[type, dict[str, Rule]] = {}


def rules_of(kind: type) -> dict[str, Rule]:
    """Field name -> rule, read once from the annotations of a dataclass."""
    if kind not in _RULES:
        hints = get_type_hints(kind, include_extras=True)
        _RULES[kind] = {field.name: get_args(hints[field.name])[1] for field in fields(kind)}
    return _RULES[kind]


@cache
def _compiled(regex: str) -> re.Pattern[str]:
    """Kept for good: reading a long log matches every field of every entry."""
    return re.compile(regex, flags=re.ASCII)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text that matches a regular expression whole."""

    regex: str
    allowed: str

    def read(self, path: str, value: object) -> str:
        """The text itself."""
        if not isinstance(value, str) or _compiled(self.regex).fullmatch(value) is None:
            raise EntryRefused(path, _show(value), self.allowed)
        return value

    def write(self, value: object) -> Json:
        """The text itself."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Text:
    """One line for people: printable, at most `longest` characters."""

    longest: int
    shortest: int = 1

    def read(self, path: str, value: object) -> str:
        """The text itself."""
        if (
            not isinstance(value, str)
            or not self.shortest <= len(value) <= self.longest
            or not value.isprintable()
            or value != value.strip()
        ):
            raise EntryRefused(path, _show(value), f"{self.shortest} to {self.longest} printable characters, one line")
        return value

    def write(self, value: object) -> Json:
        """The text itself."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Plain:
    """Words of a person for the record: one line, in which no path, address, key or patient's number would pass.

    What somebody types is the one place where a log without patients could still get one. Names cannot be told from
    other words; numbers, paths and key material can, and none of them belongs into a sentence here.
    """

    longest: int

    def read(self, path: str, value: object) -> str:
        """The words themselves."""
        text = Text(self.longest).read(path, value)
        if _UNFIT.search(text) is not None:  # not quoted: what is wrong with it may be what is in it
            raise EntryRefused(
                path,
                "words with a path, an address, a long number or something like a key",
                f"plain words, at most {self.longest} characters: no / \\ @, no number of {DIGITS_MIN} digits or more,"
                f" no word of {WORD_MAX} characters or more",
            )
        return text

    def write(self, value: object) -> Json:
        """The words themselves."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, path: str, value: object) -> str:
        """The word."""
        if not isinstance(value, str) or value not in self.words:
            raise EntryRefused(path, _show(value), f"one of {', '.join(self.words)}")
        return value

    def write(self, value: object) -> Json:
        """The word."""
        return str(value)


@dataclass(frozen=True, slots=True)
class CalendarDay:
    """A day that exists, as in 2027-12-31."""

    def read(self, path: str, value: object) -> str:
        """The day as text."""
        try:
            right = isinstance(value, str) and date.fromisoformat(value).isoformat() == value
        except ValueError:
            right = False
        if not right:
            raise EntryRefused(path, _show(value), "a day such as 2027-12-31")
        return str(value)

    def write(self, value: object) -> Json:
        """The day as text."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer in a range, ends included."""

    low: int
    high: int = INTEGER_MAX

    def read(self, path: str, value: object) -> int:
        """The integer; booleans and floats are not integers here."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise EntryRefused(path, _show(value), f"an integer from {self.low} to {self.high}")
        return value

    def write(self, value: object) -> Json:
        """The integer."""
        assert isinstance(value, int)
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number in a range, ends included; kept as a float."""

    low: float
    high: float

    def read(self, path: str, value: object) -> float:
        """The number as a float."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise EntryRefused(path, _show(value), f"a number from {self.low} to {self.high}")
        try:
            number = float(value)
        except OverflowError as error:
            raise EntryRefused(path, "an integer too large for a float", f"up to {self.high}") from error
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise EntryRefused(path, _show(value), f"a finite number from {self.low} to {self.high}")
        return number

    def write(self, value: object) -> Json:
        """The number."""
        assert isinstance(value, float)
        return value


@dataclass(frozen=True, slots=True)
class Each:
    """A list whose every item obeys one rule; a tuple in Python. `ordered` also asks for sorted and distinct items."""

    rule: Rule
    most: int
    least: int = 0
    ordered: bool = False

    def read(self, path: str, value: object) -> tuple[object, ...]:
        """The items as a tuple."""
        if not isinstance(value, list | tuple) or not self.least <= len(value) <= self.most:
            raise EntryRefused(path, _show(value), f"a list of {self.least} to {self.most} items")
        items = tuple(self.rule.read(f"{path}[{number}]", item) for number, item in enumerate(value))
        if self.ordered and list(items) != sorted(set(items)):  # type: ignore[type-var]
            raise EntryRefused(path, _show(value), "sorted items, each once")
        return items

    def write(self, value: object) -> Json:
        """A JSON list."""
        assert isinstance(value, tuple)
        return [self.rule.write(item) for item in value]


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be null."""

    rule: Rule

    def read(self, path: str, value: object) -> object:
        """None, or what the rule reads."""
        return None if value is None else self.rule.read(path, value)

    def write(self, value: object) -> Json:
        """Null, or what the rule writes."""
        return None if value is None else self.rule.write(value)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Named figures: (name, value) pairs sorted by name in Python, an object in JSON; a value may be null."""

    most: int = 1000  # with names and digits, well below the bytes an entry may have

    def read(self, path: str, value: object) -> tuple[tuple[str, float | None], ...]:
        """Pairs, sorted by name."""
        pairs = list(value.items()) if isinstance(value, dict) else value
        if not isinstance(pairs, list | tuple) or len(pairs) > self.most:
            raise EntryRefused(path, _show(value), f"at most {self.most} named figures")
        result: dict[str, float | None] = {}
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise EntryRefused(path, _show(pair), "a name and a figure")
            name = _METRIC_NAME.read(path, pair[0])
            if name in result:
                raise EntryRefused(f"{path}.{name}", "the name twice", "each name once")
            figure = _METRIC_VALUE.read(f"{path}.{name}", pair[1])
            assert figure is None or isinstance(figure, float)
            result[name] = figure
        return tuple(sorted(result.items()))

    def write(self, value: object) -> Json:
        """An object."""
        assert isinstance(value, tuple)
        return dict(value)


DIGITS_MIN, WORD_MAX = 6, 32
"""Numbers of patients have at least so many digits in practice; keys and digests are longer than any word."""

_UNFIT = re.compile(rf"[/\\@]|[0-9]{{{DIGITS_MIN}}}|[^\s]{{{WORD_MAX}}}")

LINE_CHARACTERS_MAX = 200


_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:[/\\]|[/\\~])[^\s'\"]+|[^\s'\"]*[/\\][^\s'\"]*[/\\][^\s'\"]*")
_ADDRESS = re.compile(r"[^\s'\"]+@[^\s'\"]+")
_LONG = re.compile(r"([0-9a-fA-F]{8})[0-9a-fA-F]{24,}|([A-Za-z0-9+/_-]{8})[A-Za-z0-9+/_-]{35,}=*")  # 16 bytes; 32 bytes


def one_line(text: str) -> str:
    """Text from elsewhere, such as an error's, fit for a Line: short, printable, without paths and without keys.

    | in | out |
    |---|---|
    | No space left: '/srv/hub/log/7' | No space left: '(path)' |
    | ask ada@example.org | ask (address) |
    | found 5d5d5d5d (64 digits of a digest, or of a key) | found 5d5d5d5d... |
    """
    printable = "".join(c if c.isprintable() else " " for c in text[: 10 * LINE_CHARACTERS_MAX])
    plain = _LONG.sub(r"\1\2...", _ADDRESS.sub("(address)", _PATH.sub("(path)", printable)))
    return plain[:LINE_CHARACTERS_MAX].strip() or "unspecified"


def is_plain(words: str) -> bool:
    """Whether these words may be declared: short, one line, without a path, an address, a long number or a key."""
    try:
        Plain(LINE_CHARACTERS_MAX).read("words", words)
    except EntryRefused:
        return False
    return True


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


_METRIC_NAME = Pattern(r"[a-z][a-z0-9_.-]{0,63}", "a metric name: a-z, 0-9, '_', '.', '-'")
_METRIC_VALUE = Optional(Number(-1e300, 1e300))

NAME = Pattern(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){2,63}", "a name: 3 to 64 characters of a-z, 0-9 and '-'")
DIGEST = Pattern(r"[0-9a-f]{64}", "64 lowercase hexadecimal characters")

PSEUDONYM = Pattern(r"u:[0-9a-f]{16,64}", "'u:' and 16 to 64 hexadecimal characters of an HMAC under a site's key")
REFERENCE = Pattern(
    r"[A-Za-z0-9](?:[A-Za-z0-9 ._:-]{0,30}[A-Za-z0-9])?", "a reference: at most 32 letters, digits, blanks and . _ : -"
)

Name: TypeAlias = Annotated[str, NAME]
Names: TypeAlias = Annotated[tuple[str, ...], Each(NAME, most=1000, ordered=True)]
Digest: TypeAlias = Annotated[str, DIGEST]
PublicKey: TypeAlias = Annotated[str, Pattern(r"[0-9a-f]{64}", "an Ed25519 public key as 64 hexadecimal characters")]
EcdsaKey: TypeAlias = Annotated[
    str, Pattern(r"04[0-9a-f]{128}", "an uncompressed P-256 point as 130 hexadecimal characters")
]
Signature: TypeAlias = Annotated[
    str, Pattern(r"[A-Za-z0-9+/]{86}==", "an Ed25519 signature as 88 characters of base64")
]
Line: TypeAlias = Annotated[str, Text(500)]
Label: TypeAlias = Annotated[str, Text(120)]
Lines: TypeAlias = Annotated[tuple[str, ...], Each(Text(500), most=50)]
Labels: TypeAlias = Annotated[tuple[str, ...], Each(Text(120), most=100)]
Count: TypeAlias = Annotated[int, Whole(0)]
Positive: TypeAlias = Annotated[int, Whole(1)]
Moved: TypeAlias = Annotated[int, Whole(-INTEGER_MAX)]
Epsilon: TypeAlias = Annotated[float, Number(0.0, 1e9)]
Probability: TypeAlias = Annotated[float, Number(0.0, 1.0)]
Size: TypeAlias = Annotated[float, Number(0.0, 1e12)]
MaybeLine: TypeAlias = Annotated[str | None, Optional(Text(500))]
MaybeName: TypeAlias = Annotated[str | None, Optional(NAME)]
MaybeDigest: TypeAlias = Annotated[str | None, Optional(DIGEST)]
MaybeCommitments: TypeAlias = Annotated[tuple[str, ...] | None, Optional(Each(DIGEST, most=500, least=1, ordered=True))]
MaybeFigure: TypeAlias = Annotated[float | None, Optional(Number(0.0, 16.0))]
Figures: TypeAlias = Annotated[tuple[tuple[str, float | None], ...], Metrics()]
Columns: TypeAlias = Annotated[tuple[str, ...], Each(Text(64), most=500)]
Bucket: TypeAlias = Annotated[
    str, Pattern(r"(0|[1-9][0-9]{0,8})-[1-9][0-9]{0,8}|[1-9][0-9]{0,8}\+", "a range such as '100-199' or '5000+'")
]
Pseudonym: TypeAlias = Annotated[str, PSEUDONYM]
MaybePublicKey: TypeAlias = Annotated[
    str | None, Optional(Pattern(r"[0-9a-f]{64}", "an Ed25519 public key as 64 hexadecimal characters"))
]
MaybeSignature: TypeAlias = Annotated[
    str | None, Optional(Pattern(r"[A-Za-z0-9+/]{86}==", "an Ed25519 signature as 88 characters of base64"))
]
MaybePseudonym: TypeAlias = Annotated[str | None, Optional(PSEUDONYM)]
Words: TypeAlias = Annotated[str, Plain(LINE_CHARACTERS_MAX)]
Reference: TypeAlias = Annotated[str, REFERENCE]
References: TypeAlias = Annotated[tuple[str, ...], Each(REFERENCE, most=50, least=1, ordered=True)]
Day: TypeAlias = Annotated[str, CalendarDay()]
MaybeDay: TypeAlias = Annotated[str | None, Optional(CalendarDay())]
MaybeCount: TypeAlias = Annotated[int | None, Optional(Whole(0))]
MaybeMoved: TypeAlias = Annotated[int | None, Optional(Whole(-INTEGER_MAX))]
MaybePositive: TypeAlias = Annotated[int | None, Optional(Whole(1))]
MaybeEpsilon: TypeAlias = Annotated[float | None, Optional(Number(0.0, 1e9))]
Country: TypeAlias = Annotated[str, Pattern(r"[A-Z]{2}", "a country's two letters of ISO 3166, such as DE")]
Actor: TypeAlias = Annotated[
    str, Pattern(r"coordinator|site:[a-z](?:[a-z0-9]|-(?=[a-z0-9])){2,63}", "'coordinator' or 'site:<name>'")
]
Uuid7: TypeAlias = Annotated[
    str, Pattern(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "a version 7 UUID")
]
Instant: TypeAlias = Annotated[
    str,
    Pattern(
        r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)\.[0-9]{3}Z",
        "RFC 3339 in UTC with milliseconds",
    ),
]
Outcome: TypeAlias = Annotated[
    str, Pattern(r"0|4|8|12", "'0' success, '4' minor failure, '8' serious failure or '12' major failure")
]
MaybeInstant: TypeAlias = Annotated[
    str | None,
    Optional(Pattern(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}\.[0-9]{3}Z", "RFC 3339 in UTC with milliseconds")),
]
MaybeCheckpoint: TypeAlias = Annotated[
    str | None, Optional(Pattern(r"[^\x00-\x09\x0b-\x1f\x7f]{1,30000}\n", "the text of a signed checkpoint, whole"))
]
VKey: TypeAlias = Annotated[str, Pattern(r"[!-*,-~]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*", "a verifier key")]
RoundKind: TypeAlias = Annotated[str, Pattern(r"train|evaluate", "'train' or 'evaluate'")]
