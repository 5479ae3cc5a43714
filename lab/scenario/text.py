"""The YAML form of a scenario: what people write, read and mail.

A step is a word, a word with its main value, or a word with a mapping::

    pvlab_scenario: 1
    seed: 7
    about: {title: detach under I/O}
    steps:
    - attach: {disk: hdc, size: 8 MiB}
    - start_io: {disk: hdc, threads: 2, order: random}
    - detach: hdc
    - reboot

Anchors, aliases and tags are refused: nothing that a scenario needs, and a few lines of them
unfold to gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as File
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lab.core.errors import UsageError
from lab.core.suggest import did_you_mean
from lab.scenario.model import (
    OPERATIONS,
    VERSION,
    About,
    AnyStep,
    Path,
    Repeat,
    Scenario,
    Step,
    Together,
    where,
)
from lab.scenario.sense import problems

MARK = "pvlab_scenario"
"""The key that a scenario's file has, with the format's version."""

MAX_BYTES = 1 << 20
_DEPTH = 40

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(path: File, name: str = "") -> Scenario:
    """Read a scenario's file.

    Args:
        path: of the file.
        name: for messages; the path when empty.

    Raises:
        UsageError: in one line, with file and line: it cannot be read, is no scenario, has an
            unknown key or a bad value, or a step that makes no sense where it stands.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name or path}: cannot be read: {error.strerror}") from None
    return loads(data, name or str(path))


def loads(data: bytes | str, name: str = "scenario") -> Scenario:
    """Read a scenario.

    Args:
        data: YAML.
        name: for messages.

    Raises:
        UsageError: as ``load``.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{name}: larger than {MAX_BYTES >> 20} MiB: no scenario")
    reading = _Reading(name)
    document = reading.document(raw)
    try:
        made = Scenario(**document)
    except ValidationError as error:
        raise reading.refusal(error) from None
    for path, said in problems(made.steps):
        raise UsageError(f"{reading.at(path)}: {where(path)}: {said}")
    return made


def looks_like(head: bytes) -> bool:
    """Whether a file that begins so is a scenario."""
    return f"{MARK}:".encode() in head[:4096]


def dumps(scenario: Scenario) -> str:
    """The YAML form; ``loads`` gives the same scenario back."""
    document: dict[str, Any] = {MARK: scenario.version}
    if about := scenario.about.model_dump(mode="json", exclude_defaults=True):
        document["about"] = about
    document["seed"] = scenario.seed
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    if not scenario.complete:
        text = "# Not complete: see the opaque steps, or about.incomplete.\n" + text
    steps = [plain(step) for step in scenario.steps]
    lines = yaml.dump(
        {"steps": steps}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    return text + str(lines)


def plain(step: AnyStep) -> Any:
    """A step as YAML has it: a word, or a mapping of one key."""
    values = _values(step)
    if not values:
        return step.op
    if list(values) == [step.main]:
        return {step.op: values[step.main]}
    return {step.op: values}


def _values(step: AnyStep) -> dict[str, Any]:
    if isinstance(step, Repeat):
        inner: dict[str, Any] = {
            "times": step.times,
            "steps": [plain(one) for one in step.steps],
        }
    elif isinstance(step, Together):
        inner = {"lanes": [[plain(one) for one in lane] for lane in step.lanes]}
    else:
        return step.model_dump(mode="json", exclude_defaults=True)
    if step.may_fail:
        inner["may_fail"] = True
    return inner


class _Dumper(yaml.SafeDumper):
    """Writes the values of a step on its line, and groups over several."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        """As the base class; a mapping of plain values goes on one line."""
        simple = all(not isinstance(value, list | dict) for value in mapping.values())
        step = len(mapping) == 1 and next(iter(mapping)) in OPERATIONS
        return super().represent_mapping(tag, mapping, flow_style=simple and not step)

    def ignore_aliases(self, data: Any) -> bool:
        """Equal steps are written out each."""
        return True


class _Reading:
    """One file, with the line of every part of it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[Path, int] = {}

    def at(self, path: Path) -> str:
        """File and line of the innermost part that is known."""
        for length in range(len(path), -1, -1):
            if (line := self._lines.get(path[:length])) is not None:
                return f"{self._name}:{line}"
        return self._name

    def document(self, raw: bytes) -> dict[str, Any]:
        """The fields of ``Scenario``, steps in their long form.

        Raises:
            UsageError: it is no YAML, or not of a scenario's form.
        """
        data = self._mapping(self._compose(raw), ())
        if MARK not in data:
            raise UsageError(
                f"{self._name}: not a scenario: it has no key `{MARK}`",
                hint=f"a scenario's file says `{MARK}: {VERSION}`",
            )
        version = self._value(data.pop(MARK), (MARK,))
        if version != VERSION:
            raise UsageError(
                f"{self.at((MARK,))}: format {version!r} is unknown; this lab reads {VERSION}"
            )
        known = ["seed", "about", "steps"]
        for key in data:
            if key not in known:
                raise self._unknown((key,), key, [MARK, *known])
        if "steps" not in data:
            raise UsageError(f"{self._name}: a scenario needs `steps`")
        document: dict[str, Any] = {"steps": self._steps(data.pop("steps"), ("steps",))}
        for key, node in data.items():
            document[key] = self._value(node, (key,))
        return document

    def _compose(self, raw: bytes) -> yaml.Node:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{self._name}: not UTF-8 text (byte {error.start})") from None
        try:
            self._refuse_tricks(text)
            node: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            said = " ".join(str(error.problem or error.context or "damaged").split())
            raise UsageError(f"{self._name}{line}: not valid YAML: {said}") from None
        except (yaml.YAMLError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise UsageError(f"{self._name}: not valid YAML: {said}") from None
        if node is None:
            raise UsageError(f"{self._name}: empty")
        return node

    def _refuse_tricks(self, text: str) -> None:
        # Before anything is built from it, and without recursion.
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise UsageError(f"{self._name}:{_line(event)}: anchors and aliases are not read")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _DEPTH:
                raise UsageError(f"{self._name}:{_line(event)}: nested more than {_DEPTH} deep")

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, yaml.Node]:
        self._note(path, node)
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{self.at(path)}: should be keys with values")
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise UsageError(f"{self._name}:{key_node.start_mark.line + 1}: no usable key")
            key = str(key_node.value)
            self._lines[(*path, key)] = key_node.start_mark.line + 1
            if key in found:
                raise UsageError(f"{self.at((*path, key))}: {key!r} is there twice")
            found[key] = value
        return found

    def _note(self, path: Path, node: yaml.Node) -> None:
        self._lines.setdefault(path, node.start_mark.line + 1)

    def _steps(self, node: yaml.Node, path: Path) -> list[dict[str, Any]]:
        self._note(path, node)
        if not isinstance(node, yaml.SequenceNode):
            raise UsageError(f"{self.at(path)}: should be a list of steps")
        return [self._step(one, (*path, index)) for index, one in enumerate(node.value)]

    def _step(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        self._note(path, node)
        if isinstance(node, yaml.ScalarNode):
            name, value = str(node.value), None
        else:
            pairs = self._mapping(node, path)
            if len(pairs) != 1:
                raise UsageError(
                    f"{self.at(path)}: {where(path)}: a step is one word with its values",
                    hint="such as `- detach: hdc`",
                )
            name, value = next(iter(pairs.items()))
        if name not in OPERATIONS:
            raise self._unknown(path, name, OPERATIONS, "step")
        kind = OPERATIONS[name]
        inside = (*path, name)
        self._lines[inside] = self._lines[path]
        if value is None or _is_null(value):
            return {"op": name}
        if isinstance(value, yaml.MappingNode):
            return {"op": name, **self._fields(value, inside, kind)}
        if not kind.main:
            raise UsageError(
                f"{self.at(path)}: {where(path)}: `{name}` takes "
                + ("keys with values" if len(kind.model_fields) > 2 else "no value")
            )
        return {"op": name, kind.main: self._field(kind.main, value, (*inside, kind.main))}

    def _fields(self, node: yaml.Node, path: Path, kind: type[Step]) -> dict[str, Any]:
        fields = self._mapping(node, path)
        known = [name for name in kind.model_fields if name != "op"]
        for key in fields:
            if key not in known:
                raise self._unknown((*path, key), key, known)
        return {key: self._field(key, value, (*path, key)) for key, value in fields.items()}

    def _field(self, key: str, node: yaml.Node, path: Path) -> Any:
        if key == "steps":
            return self._steps(node, path)
        if key == "lanes":
            self._note(path, node)
            if not isinstance(node, yaml.SequenceNode):
                raise UsageError(f"{self.at(path)}: should be a list of lists of steps")
            return [self._steps(lane, (*path, n)) for n, lane in enumerate(node.value)]
        return self._value(node, path)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._note(path, node)
        if isinstance(node, yaml.MappingNode):
            inner = self._mapping(node, path)
            return {key: self._value(value, (*path, key)) for key, value in inner.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self._value(value, (*path, n)) for n, value in enumerate(node.value)]
        if node.tag == "tag:yaml.org,2002:timestamp":
            return str(node.value)
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            raise UsageError(f"{self.at(path)}: {str(node.value)[:60]!r} is no value") from None

    def _unknown(self, path: Path, key: str, known: Iterable[str], what: str = "key") -> UsageError:
        words = sorted(known)
        hint = did_you_mean(key, words) or f"known: {', '.join(words)}"
        return UsageError(f"{self.at(path)}: unknown {what} {key[:60]!r}", hint=hint)

    def refusal(self, error: ValidationError) -> UsageError:
        """The first problem as one line."""
        found = error.errors(include_url=False, include_context=False, include_input=False)
        first = found[0]
        path: Path = tuple(first["loc"])
        if first["type"] == "extra_forbidden":
            model: type[BaseModel] = About if path[:1] == ("about",) else Scenario
            return self._unknown(path, str(path[-1]), model.model_fields)
        named = [str(part) for part in path if isinstance(part, str)]
        key = f"{named[-1]}: " if len(named) > 1 and named[-1] not in OPERATIONS else ""
        step = f"{where(path)}: " if any(isinstance(part, int) for part in path) else ""
        text = first["msg"].removeprefix("Value error, ")
        return UsageError(f"{self.at(path)}: {step}{key}{text[:1].lower()}{text[1:]}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def outline(scenario: Scenario) -> list[str]:
    """The scenario for people: a line for each step, groups indented."""
    lines: list[str] = []
    _outline(scenario.steps, "", lines)
    return lines


def _outline(steps: Sequence[AnyStep], indent: str, lines: list[str]) -> None:
    for step in steps:
        optional = " (may fail)" if step.may_fail else ""
        if isinstance(step, Repeat):
            lines.append(f"{indent}{step.times} times{optional}")
            _outline(step.steps, indent + "  ", lines)
        elif isinstance(step, Together):
            lines.append(f"{indent}at the same time{optional}")
            for lane in step.lanes:
                lines.append(f"{indent}  -")
                _outline(lane, indent + "    ", lines)
        else:
            lines.append(indent + words(step))


def words(step: AnyStep) -> str:
    """One step in a line: ``detach hdc force=True``."""
    if isinstance(step, Repeat):
        return f"repeat {step.times} times"
    if isinstance(step, Together):
        return f"{len(step.lanes)} lists of steps together"
    values: Mapping[str, Any] = step.model_dump(mode="json", exclude_defaults=True)
    main = [str(values[step.main])] if step.main in values else []
    rest = [f"{name}={value}" for name, value in values.items() if name != step.main]
    return " ".join([step.op, *main, *rest])
