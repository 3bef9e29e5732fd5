"""`$` expressions: parsed, checked against an allow-list of syntax, and computed by an evaluator of our own. Pure.

MONAI hands such a text to Python's `eval` with torch, numpy and whatever the bundle imported in reach. Here it is only
parsed. `check` puts it into one of two classes, or refuses it:

| class | grammar | what happens |
|---|---|---|
| computed | `@` references, `CONSTANTS`, arithmetic, comparisons, lists, slices, a loop, `FUNCTIONS` | `compute` |
| left out | the same, and the calls in `LEFT_OUT_CALLS`: files, devices, loops of MONAI | named, and never run |

Neither class has imports, lambdas, formatted text, assignments, names with an underscore in front, attributes beyond
whole listed names, or calls of anything that is not a listed name. There is no `getattr` here to walk anywhere: a
dotted name is looked up as one word. Every number, list and text that arises is bounded before it is made, and the
steps are counted, so `9**9**9` and nested loops end at once.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from consortium.contract.errors import shown
from site_agent.bundles.documents import NUMBER_MAX, TEXT_MAX, Value

LENGTH_MAX = 600  # characters of one expression
DEPTH_MAX = 20
NODES_MAX = 250
ITEMS_MAX = 4_096  # of one list
STEPS_MAX = 20_000  # nodes computed for one expression
_ITEMS_IN_A_STEP = 8
_EXPONENT_MAX = 64
_DECIMALS_MAX = 64

REFERENCE = re.compile(r"@[A-Za-z0-9_]*(?:(?:::|#)[A-Za-z0-9_]*)*")
_PLACEHOLDER = "consortium_reference_"


@dataclass(frozen=True, slots=True)
class DataType:
    """A number type by name, "float32": what `$torch.float32` means here, where there is no torch."""

    name: str


class Opaque:
    """What an expression may hand on, in lists, and not look into: a component of the bundle."""

    __slots__ = ()


CONSTANTS: Mapping[str, Value] = MappingProxyType(
    {
        **dict.fromkeys(("np.pi", "numpy.pi", "math.pi", "torch.pi"), math.pi),
        **{
            f"{library}.{name}": DataType(name)
            for library in ("torch", "np", "numpy")
            for name in ("float16", "float32", "float64", "uint8", "int16", "int32", "int64")
        },
        "torch.long": DataType("int64"),
        "torch.float": DataType("float32"),
    }
)
FUNCTIONS = ("abs", "bool", "float", "int", "len", "list", "max", "min", "range", "round", "sum", "tuple")

LEFT_OUT_CALLS: Mapping[str, str] = MappingProxyType(
    {
        "glob.glob": "finding files: the hospital's own data is read by site.yaml",
        "os.path.join": "paths: the hospital's own data is read by site.yaml",
        "sorted": "lists of files: the hospital's own data is read by site.yaml",
        "zip": "lists of files: the hospital's own data is read by site.yaml",
        "monai.data.load_decathlon_datalist": "lists of files: the hospital's own data is read by site.yaml",
        "monai.data.partition_dataset": "splits: the study says how patients are split",
        "monai.handlers.from_engine": "loops: the agent has its own",
        "monai.utils.set_determinism": "seeds: the study's seed decides",
        "torch.device": "devices: the hospital decides",
        "torch.cuda.is_available": "devices: the hospital decides",
        "torch.cuda.device_count": "devices: the hospital decides",
    }
)
LEFT_OUT_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "to": "devices: the hospital decides",
        "cuda": "devices: the hospital decides",
        "parameters": "the optimizer's wiring: all parameters are trained",
        "run": "loops: the agent has its own",
        "replace": "lists of files: the hospital's own data is read by site.yaml",
    }
)
_CUDNN_SETTINGS = ("benchmark", "deterministic", "enabled")
_CUDNN = "torch.backends.cudnn"

_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


class ExpressionRefused(Exception):
    """An expression that is not taken; whoever knows its place says so."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"found {found}; allowed: {allowed}")
        self.found = found
        self.allowed = allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An expression whose every part is on the allow-list."""

    body: ast.expr
    references: Mapping[str, str]  # the name that stands for it in `body` -> "train#transforms"
    left_out: str | None  # why it is never run; None if it can be computed


def check(text: str) -> Checked:
    """An expression, without its `$`, as a checked tree.

    Raises:
        ExpressionRefused: Some part is not on the allow-list, or it passes a bound.
    """
    if len(text) > LENGTH_MAX:
        raise ExpressionRefused(f"an expression of {len(text)} characters", f"at most {LENGTH_MAX}")
    if _PLACEHOLDER in text:
        raise ExpressionRefused(f"the name {_PLACEHOLDER}", "other names")
    references: dict[str, str] = {}
    body = _parsed(REFERENCE.sub(lambda match: _named(match[0], references), text.strip()))
    checker = _Checker(references=references)
    try:
        checker.look(body, 0)
    except RecursionError:
        raise ExpressionRefused("an expression with too many parts", f"{NODES_MAX} parts, {DEPTH_MAX} levels") from None
    reasons = sorted(checker.left_out)
    return Checked(body=body, references=references, left_out=reasons[0] if reasons else None)


def _named(reference: str, references: dict[str, str]) -> str:
    name = f"{_PLACEHOLDER}{len(references)}"
    references[name] = reference[1:].replace("::", "#")
    return name


def _parsed(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an odd escape is a warning to Python, and no expression here
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, Warning, RecursionError, MemoryError):
        raise ExpressionRefused("what is not one Python expression", _GRAMMAR) from None


_GRAMMAR = (
    "arithmetic, comparisons, lists, slices and loops over lists, on constants, @references, "
    f"{', '.join(FUNCTIONS)}, np.pi and types such as torch.float32"
)


def dotted(node: ast.expr) -> str | None:
    """The whole name that attributes of a name spell, "torch.cuda.is_available"; None if it is something else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


@dataclass(slots=True, kw_only=True)
class _Checker:
    """Looks at every node of one expression. Mutable: it counts, and collects what is left out and why."""

    references: Mapping[str, str]
    variables: set[str] = field(default_factory=set)  # of the loops around the node at hand
    left_out: set[str] = field(default_factory=set)
    nodes: int = 0

    def look(self, node: ast.AST, depth: int) -> None:
        """Raises ExpressionRefused if a node, or one inside it, is not on the allow-list."""
        self.nodes += 1
        if self.nodes > NODES_MAX or depth > DEPTH_MAX:
            raise ExpressionRefused("an expression with too many parts", f"{NODES_MAX} parts, {DEPTH_MAX} levels")
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                if isinstance(value, str) and _PLACEHOLDER in value:
                    raise ExpressionRefused("an @ inside quoted text", "references outside quotes")
                _bounded(value)
            case ast.Name(id=name):
                if name not in self.references and name not in self.variables:
                    raise ExpressionRefused(f"the name {shown(name)}", _GRAMMAR)
            case ast.Attribute():
                if dotted(node) not in CONSTANTS:
                    raise ExpressionRefused(f"the attribute {self.written(node)}", _GRAMMAR)
            case ast.Call():
                self.call(node, depth)
            case ast.ListComp():
                self.loop(node, depth)
            case ast.Dict(keys=keys):
                if None in keys:
                    raise ExpressionRefused("a section unpacked into another", _GRAMMAR)
                self.parts(node, depth)
            case ast.UnaryOp(op=op) if type(op) in _UNARY:
                self.look(node.operand, depth + 1)
            case ast.BinOp(op=binary) if type(binary) in _BINARY:
                self.look(node.left, depth + 1)
                self.look(node.right, depth + 1)
            case ast.Compare(ops=ops) if all(type(op) in _COMPARE for op in ops):
                for part in (node.left, *node.comparators):
                    self.look(part, depth + 1)
            case ast.BoolOp():
                for part in node.values:
                    self.look(part, depth + 1)
            case ast.List() | ast.Tuple():
                for part in node.elts:
                    self.look(part, depth + 1)
            case ast.IfExp() | ast.Subscript() | ast.Slice():
                self.parts(node, depth)
            case _:
                raise ExpressionRefused(_kind(node), _GRAMMAR)

    def written(self, node: ast.expr) -> str:
        """A node as its author wrote it, for the message."""
        text = ast.unparse(node)
        for name, reference in self.references.items():
            text = text.replace(name, f"@{reference}")
        return shown(text)

    def parts(self, node: ast.AST, depth: int) -> None:
        """Look at all that a node holds, except whether it is read or written: an expression only reads."""
        for part in ast.iter_child_nodes(node):
            if not isinstance(part, ast.expr_context):
                self.look(part, depth + 1)

    def call(self, node: ast.Call, depth: int) -> None:
        """A call of a listed name. What is called is compared as a word and never computed."""
        name = dotted(node.func)
        if name == "setattr":
            self.setting(node)
            return
        if name in FUNCTIONS and not node.keywords:
            pass
        elif name is not None and name in LEFT_OUT_CALLS:
            self.left_out.add(LEFT_OUT_CALLS[name])
        elif isinstance(node.func, ast.Attribute) and node.func.attr in LEFT_OUT_METHODS and self.own(node.func.value):
            self.left_out.add(LEFT_OUT_METHODS[node.func.attr])
            self.look(node.func.value, depth + 1)
        else:
            raise ExpressionRefused(f"a call of {self.written(node.func)}", f"{_GRAMMAR}; {_LEFT_OUT}")
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg.startswith("_"):
                raise ExpressionRefused("arguments unpacked into a call", "arguments written out")
            self.look(keyword.value, depth + 1)
        for argument in node.args:
            self.look(argument, depth + 1)

    def own(self, node: ast.expr) -> bool:
        """Whether a method is one of something the bundle itself names: a reference or the variable of a loop."""
        return isinstance(node, ast.Name) and (node.id in self.references or node.id in self.variables)

    def setting(self, node: ast.Call) -> None:
        """`setattr(torch.backends.cudnn, 'benchmark', True)`, which nearly every bundle has, and no other."""
        match node.args, node.keywords:
            case [target, ast.Constant(value=str() as name), ast.Constant(value=bool())], [] if (
                dotted(target) == _CUDNN and name in _CUDNN_SETTINGS
            ):
                self.left_out.add("devices: the hospital decides")
            case _:
                raise ExpressionRefused(f"a call of {self.written(node)}", f"setattr({_CUDNN}, 'benchmark', True)")

    def loop(self, node: ast.ListComp, depth: int) -> None:
        """A loop over one list, with a variable or a few."""
        if len(node.generators) != 1 or node.generators[0].is_async:
            raise ExpressionRefused("a loop within a loop", "one loop over one list")
        generator = node.generators[0]
        self.look(generator.iter, depth + 1)
        names = [part for part in ast.walk(generator.target) if not isinstance(part, ast.expr_context)]
        outer = set(self.variables)
        for part in names:
            if isinstance(part, ast.Name) and not part.id.startswith("_") and part.id not in self.references:
                self.variables.add(part.id)
            elif not isinstance(part, ast.Tuple) or part is not generator.target:
                raise ExpressionRefused("an odd variable of a loop", "a name, or names with commas between them")
        self.look(node.elt, depth + 1)
        for condition in generator.ifs:
            self.look(condition, depth + 1)
        self.variables = outer


_LEFT_OUT = "and, never run, the calls that docs/reference/bundles.md lists"


def _kind(node: ast.AST) -> str:
    known = {
        "Lambda": "a function of its own (lambda)",
        "JoinedStr": "formatted text",
        "NamedExpr": "an assignment",
        "GeneratorExp": "a generator",
        "Starred": "a list unpacked into another",
        "Await": "an await",
        "Yield": "a yield",
        "Constant": "a constant that is no number, text, true, false or nothing",
    }
    kind = type(node).__name__
    return known.get(kind, f"syntax of the kind {kind}")


@dataclass(slots=True, kw_only=True)
class _Evaluator:
    """Computes one checked expression. Mutable: it counts its steps and keeps the variables of loops."""

    checked: Checked
    lookup: Callable[[str], Value]
    variables: dict[str, Value] = field(default_factory=dict)
    steps: int = 0

    def value(self, node: ast.expr) -> Value:
        """The value of a node, bounded."""
        value = _bounded(self._value(node))
        self.steps += 1 + (len(value) // _ITEMS_IN_A_STEP if isinstance(value, (list, str)) else 0)
        if self.steps > STEPS_MAX:
            raise ExpressionRefused("an expression that takes too long", f"{STEPS_MAX} steps")
        return value

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                reference = self.checked.references.get(name)
                return self.variables[name] if reference is None else self.lookup(reference)
            case ast.Attribute():
                return CONSTANTS[str(dotted(node))]
            case ast.UnaryOp(op=op, operand=operand):
                return _UNARY[type(op)](self.value(operand))
            case ast.BinOp(left=left, op=operator_, right=right):
                return _binary(operator_, self.value(left), self.value(right))
            case ast.Compare():
                return self.comparison(node)
            case ast.BoolOp(op=op, values=values):
                stops_at = isinstance(op, ast.Or)
                result: Value = None
                for part in values:
                    result = self.value(part)
                    if bool(result) is stops_at:
                        break
                return result
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.value(body if self.value(test) else orelse)
            case ast.List(elts=elts) | ast.Tuple(elts=elts):
                return [self.value(part) for part in elts]
            case ast.Dict(keys=keys, values=values):
                return {_text(self.value(key)): self.value(part) for key, part in zip(keys, values, strict=True) if key}
            case ast.Subscript(value=inner, slice=index):
                return self.item(self.value(inner), index)
            case ast.ListComp(elt=elt, generators=[generator]):
                return list(self.loop(elt, generator))
            case ast.Call(func=ast.Name(id=name), args=args):
                return _call(name, [self.value(argument) for argument in args])
            case _:
                raise ExpressionRefused(_kind(node), _GRAMMAR)

    def comparison(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.value(comparator)
            if not (_is_scalar(left) and _is_scalar(right)):
                raise ExpressionRefused("a comparison of lists or sections", "comparisons of numbers and texts")
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def item(self, value: Value, index: ast.expr) -> Value:
        if isinstance(index, ast.Slice):
            bounds = [None if part is None else self.value(part) for part in (index.lower, index.upper, index.step)]
            if not isinstance(value, (list, str)):
                raise ExpressionRefused("a slice of something that is no list", "a slice of a list or a text")
            return value[slice(*bounds)]
        if not isinstance(value, (list, str, dict)):
            raise ExpressionRefused("an item of something that is no list", "an item of a list, text or section")
        return value[self.value(index)]

    def loop(self, elt: ast.expr, generator: ast.comprehension) -> Iterator[Value]:
        items = self.value(generator.iter)
        if not isinstance(items, list):
            raise ExpressionRefused("a loop over something that is no list", "a loop over a list")
        outer = dict(self.variables)
        for item in items:
            if isinstance(generator.target, ast.Name):
                self.variables[generator.target.id] = item
            else:
                assert isinstance(generator.target, ast.Tuple)  # the checker's
                for target, part in zip(generator.target.elts, item, strict=True):
                    assert isinstance(target, ast.Name)
                    self.variables[target.id] = part
            if all(self.value(condition) for condition in generator.ifs):
                yield self.value(elt)
        self.variables = outer


def compute(checked: Checked, lookup: Callable[[str], Value]) -> Value:
    """The value of a checked expression; tuples come out as lists.

    Args:
        checked: As `check` gave it.
        lookup: The value of a reference, "train#transforms"; raises what it likes.

    Raises:
        ExpressionRefused: It is one of those left out, passes a bound, or has no value.
    """
    if checked.left_out is not None:
        raise ExpressionRefused(f"something that is not run here ({checked.left_out})", _GRAMMAR)
    try:
        return _Evaluator(checked=checked, lookup=lookup).value(checked.body)
    except (ArithmeticError, TypeError, ValueError, LookupError) as error:
        raise ExpressionRefused(f"an expression without a value ({type(error).__name__})", "one with a value") from None


def _binary(op: ast.operator, left: Value, right: Value) -> Value:
    """One operation; what it would make is bounded before it is made."""
    numbers = _is_number(left) and _is_number(right)
    joins = type(left) is type(right) and isinstance(left, (list, str))
    repeats = isinstance(op, ast.Mult) and any(
        isinstance(a, list) and type(b) is int and all(_is_scalar(part) for part in a)
        for a, b in ((left, right), (right, left))
    )
    if isinstance(op, ast.Add) and joins:
        if len(left) + len(right) > (TEXT_MAX if isinstance(left, str) else ITEMS_MAX):
            raise ExpressionRefused("a text or list that grows too long", f"{ITEMS_MAX} items, {TEXT_MAX} characters")
    elif repeats:
        items, times = (left, right) if isinstance(left, list) else (right, left)
        if len(items) * times > ITEMS_MAX:
            raise ExpressionRefused("a list that grows too long", f"{ITEMS_MAX} items")
    elif not numbers:
        raise ExpressionRefused("an operation on something other than numbers", "numbers, or a sum of texts or lists")
    elif isinstance(op, ast.Pow) and (abs(right) > _EXPONENT_MAX or (left < 0 and type(right) is not int)):
        raise ExpressionRefused("a power out of range", f"exponents of at most {_EXPONENT_MAX}")
    return _BINARY[type(op)](left, right)


def _call(name: str, args: list[Value]) -> Value:
    """One of FUNCTIONS, with arguments it takes."""
    match name, args:
        case "range", [_, *_] if all(type(part) is int for part in args) and len(args) <= 3:
            made = range(*args)
            if len(made) > ITEMS_MAX:
                raise ExpressionRefused("a range that is too long", f"{ITEMS_MAX} items")
            return list(made)
        case (("list" | "tuple"), [list() | str() as only]):
            return list(only)
        case "len", [list() | str() | dict() as only]:
            return len(only)
        case (("min" | "max"), [list() as only]) if only and all(map(_is_number, only)):
            return (min if name == "min" else max)(only)
        case (("min" | "max"), [_, _, *_]) if all(map(_is_number, args)):
            return (min if name == "min" else max)(args)
        case "sum", [list() as only] if all(map(_is_number, only)):
            return sum(only)
        case "bool", [only]:
            return bool(only)
        case (("int" | "float"), [only]) if _is_number(only) or (isinstance(only, str) and len(only) <= 40):
            return int(only) if name == "int" else float(only)
        case "abs", [only] if _is_number(only):
            return abs(only)
        case "round", [only] if _is_number(only):
            return round(only)
        case "round", [only, int() as decimals] if _is_number(only) and abs(decimals) <= _DECIMALS_MAX:
            return round(only, decimals)
        case _:
            raise ExpressionRefused(f"{name} with arguments it does not take here", f"the usual arguments of {name}")


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float))  # a bool is one, as in Python


def _is_scalar(value: Value) -> bool:
    return value is None or isinstance(value, (int, float, str))


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise ExpressionRefused("a key that is no text", "texts as keys")
    return value


def _bounded(value: Value) -> Value:
    """The value, if no bound is passed; raises ExpressionRefused."""
    match value:
        case bool() | None | DataType() | Opaque():
            pass
        case int() | float() if not -NUMBER_MAX < value < NUMBER_MAX:
            raise ExpressionRefused("a number that is too large or not finite", "finite numbers below 2^63")
        case str() if len(value) > TEXT_MAX:
            raise ExpressionRefused("a text that is too long", f"{TEXT_MAX} characters")
        case list() if len(value) > ITEMS_MAX:
            raise ExpressionRefused("a list that is too long", f"{ITEMS_MAX} items")
        case int() | float() | str() | list() | dict():
            pass
        case _:
            raise ExpressionRefused("a value that is no plain data", "numbers, texts, lists and sections")
    return value
