"""The snippets for continuous integration: what can be known of them without these systems."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import yaml

from lab.cli.errors import refused_command_line
from lab.cli.main import app
from lab.core.paths import repo_root
from lab.gate.policy import Policy

DOCS = repo_root() / "docs"
CI = DOCS / "ci"
FILES = ("github.yml", "gitlab-ci.yml", "Jenkinsfile")

TRIPLE = re.compile(r"'''(.*?)'''", re.S)
TEXT = re.compile(r"'''.*?'''|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"", re.S)


def text(name: str) -> str:
    return (CI / name).read_text()


def scripts(name: str) -> Iterator[str]:
    """The shell scripts of a snippet."""
    if name == "Jenkinsfile":
        source = text(name)
        yield from TRIPLE.findall(source)
        yield from re.findall(r"\bsh '([^'\n]+)'", source)
        return
    yield from _scripts(yaml.safe_load(text(name)))


def _scripts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("run", "script", "before_script", "after_script"):
                yield "\n".join(value) if isinstance(value, list) else value
            else:
                yield from _scripts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _scripts(value)


def commands(script: str) -> Iterator[list[str]]:
    """The words of every ``pvlab`` command of a script, variables as words."""
    for line in script.replace("\\\n", " ").splitlines():
        plain = re.sub(r"\$\{\{.*?\}\}|\$\{?\w+\}?", "word", line.split("#")[0])
        if plain.strip().startswith("pvlab "):
            yield shlex.split(re.split(r"\|\||&&|;|>", plain)[0])[1:]


def parse(words: list[str]) -> str:
    """Parse a command line as ``pvlab`` does, without running it; gives the command's path."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    name = "pvlab"
    while True:
        context = command.make_context(name, list(words), parent=context)
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not hasattr(command, "resolve_command") or not rest:
            return str(context.command_path)
        name, command, words = command.resolve_command(context, rest)


@pytest.mark.parametrize("name", FILES)
def test_every_command_line_is_one_that_pvlab_takes(name: str):
    found = [words for script in scripts(name) for words in commands(script)]
    paths = [parse(words) for words in found]
    assert {"pvlab setup", "pvlab gate", "pvlab gate verify"} <= set(paths)


def refused(words: list[str]) -> str | None:
    """What is wrong with a command line; None when nothing is."""
    try:
        parse(words)
    except Exception as error:
        return refused_command_line(error)
    return None


@pytest.mark.parametrize("words", [["gate", "--drivr", "x"], ["gate", "verfy", "x"], ["gat"]])
def test_a_wrong_command_line_would_be_found(words: list[str]):
    assert refused(words)


def test_github():
    found = yaml.safe_load(text("github.yml"))
    # YAML 1.1, which PyYAML reads, takes `on` for true; GitHub does not.
    assert set(found) == {"name", True, "jobs"}
    assert set(found[True]) <= {"pull_request", "push", "schedule", "workflow_dispatch"}
    for job in found["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert set(step) <= {"name", "id", "if", "uses", "with", "run", "env"}
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+", step["uses"])
    gate = next(step for step in found["jobs"]["gate"]["steps"] if step.get("name") == "Gate")
    assert 'exit "$code"' in gate["run"]


def test_gitlab():
    found = yaml.safe_load(text("gitlab-ci.yml"))
    jobs = {name: job for name, job in found.items() if name != "stages"}
    for job in jobs.values():
        assert job["stage"] in found["stages"]
        assert all(isinstance(line, str) for line in job["script"])
    assert jobs["gate"]["allow_failure"] == {"exit_codes": [3]}
    assert jobs["gate"]["artifacts"]["when"] == "always"


def test_jenkins_brackets_and_sections():
    source = re.sub(r"^\s*//.*$", "", text("Jenkinsfile"), flags=re.MULTILINE)
    source = TEXT.sub("TEXT", source)
    assert "'" not in source
    assert '"' not in source
    pairs, opened = {"}": "{", ")": "(", "]": "["}, []
    blocks: list[str] = []
    sections: set[tuple[str, ...]] = set()
    for mark in re.finditer(r"(\w+)?(\([^(){}]*\))?\s*([{}()\[\]])", source):
        bracket = mark[3]
        if bracket in pairs:
            assert opened.pop() == pairs[bracket], f"{bracket} at {mark.start()}"
            if bracket == "}":
                blocks.pop()
            continue
        opened.append(bracket)
        if bracket == "{":
            blocks.append(mark[1] or "")
            sections.add(tuple(blocks))
    assert not opened
    # "Pipeline Syntax" of Jenkins' handbook, declarative pipelines: required sections.
    for needed in (
        ("pipeline",),
        ("pipeline", "agent"),
        ("pipeline", "stages"),
        ("pipeline", "stages", "stage", "steps"),
        ("pipeline", "stages", "stage", "steps", "script"),
        ("pipeline", "post", "always"),
    ):
        assert needed in sections, needed


def test_the_page_shows_the_files():
    page = (DOCS / "ci.md").read_text()
    for name in FILES:
        assert f"\n{text(name)}```\n" in page, name
        assert f"](ci/{name})" in page


def test_the_page_s_commands_and_policy():
    page = (DOCS / "ci.md").read_text()
    shell = "".join(re.findall(r"```sh\n(.*?)```", page, re.S))
    assert len([parse(words) for words in commands(shell)]) == 4
    (policy,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    shown = tomllib.loads(policy)
    Policy.model_validate(shown)
    # What it shows are the defaults, but for how much the tests do.
    defaults = Policy().model_dump(mode="json")
    shown["suite"]["intensity"] = defaults["suite"]["intensity"]
    assert {**shown, "name": ""} == defaults
