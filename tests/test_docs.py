"""Every piece of Python in the README and in the package's docstrings runs as printed."""

import ast
import doctest
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
# On the line before a block, in Markdown or in a docstring: it is not run.
NO_TEST = ("<!-- no-test -->", ".. no-test")


class Block(NamedTuple):
    """A piece of text and the line of its file that it starts on, counted from 0."""

    code: str
    line: int


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def code_blocks(text: str) -> Iterator[Block]:
    """Find Markdown's fenced blocks and reStructuredText's code blocks marked as Python."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if number and lines[number - 1].strip() in NO_TEST:
            continue
        if line.strip() == "```python":
            body = fenced_lines(lines[number + 1 :])
        elif line.strip() == ".. code-block:: python":
            body = indented_lines(lines[number + 1 :], indent_of(line))
        else:
            continue
        yield Block(textwrap.dedent("\n".join(body)), number + 1)


def fenced_lines(lines: list[str]) -> list[str]:
    ends = [number for number, line in enumerate(lines) if line.strip() == "```"]
    return lines[: ends[0]]


def indented_lines(lines: list[str], indent: int) -> list[str]:
    ends = [n for n, line in enumerate(lines) if line.strip() and indent_of(line) <= indent]
    return lines[: ends[0]] if ends else lines


def docstrings(path: Path) -> Iterator[Block]:
    """Find the docstrings of a file, without importing it."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, documented) and ast.get_docstring(node):
            yield Block(ast.get_docstring(node, clean=False), node.body[0].lineno - 1)


def package_files() -> list[Path]:
    return sorted((ROOT / "rllib_attention").rglob("*.py"))


def params(path: Path, blocks: list[Block]) -> list:
    where = path.relative_to(ROOT)
    return [pytest.param(path, block, id=f"{where}:{block.line + 1}") for block in blocks]


def code_params() -> list:
    found = params(README, list(code_blocks(README.read_text())))
    for path in package_files():
        for docstring in docstrings(path):
            blocks = code_blocks(docstring.code)
            found += params(path, [Block(b.code, docstring.line + b.line) for b in blocks])
    return found


def doctest_params() -> list:
    found = []
    for path in package_files():
        found += params(path, [block for block in docstrings(path) if ">>>" in block.code])
    return found


@pytest.mark.parametrize(("path", "block"), code_params())
def test_code_block_runs(path, block, tmp_path):
    # A process of its own, since examples start Ray. Empty lines stand for what comes before
    # the block, so that a traceback names the right line.
    script = tmp_path / f"{path.stem}_example.py"
    script.write_text("\n" * block.line + block.code)
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": python_path},
        check=False,
    )
    assert result.returncode == 0, f"{path}, line {block.line + 1}:\n{result.stderr}"


@pytest.mark.parametrize(("path", "block"), doctest_params())
def test_doctest_prints_what_it_says(path, block, capsys):
    # An empty namespace: an example has to import what it uses, as its reader would.
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(block.code, {}, path.stem, str(path), block.line)
    result = doctest.DocTestRunner(optionflags=flags).run(test)
    assert result.attempted
    assert not result.failed, capsys.readouterr().out


@pytest.mark.parametrize("marker", ["<!-- train-command -->", "<!-- test-command -->"])
def test_readme_has_each_marked_command_once(marker):
    lines = README.read_text().split("\n")
    assert lines.count(marker) == 1
    start = lines.index(marker) + 1
    assert lines[start] == "```bash"
    assert fenced_lines(lines[start + 1 :])


def test_code_blocks_are_found_where_they_are():
    markdown = "Text\n```python\nx = 1\n\ny = 2\n```\n```bash\nls\n```\n"
    assert list(code_blocks(markdown)) == [Block("x = 1\n\ny = 2", 2)]
    restructured = "    .. code-block:: python\n\n        if x:\n            y()\n\n    Text"
    assert list(code_blocks(restructured)) == [Block("\nif x:\n    y()\n", 1)]


def test_marked_blocks_are_left_out():
    assert not list(code_blocks("<!-- no-test -->\n```python\n1 / 0\n```"))
    assert not list(code_blocks(".. no-test\n.. code-block:: python\n\n    1 / 0"))
