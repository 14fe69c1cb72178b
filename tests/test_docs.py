"""Every piece of Python in the README, in `docs/` and in the package's docstrings runs as printed.

Links between the pages lead somewhere.
"""

import ast
import doctest
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SITE = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *SITE]
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


def code_groups() -> dict[str, list[tuple[Path, Block]]]:
    """Find the blocks that run in one process: of a page that builds algorithms, a folder, others.

    All pages that build nothing share a process.
    """
    groups: dict[str, list[tuple[Path, Block]]] = {}
    for page in PAGES:
        blocks = list(code_blocks(page.read_text()))
        builds = any(re.search(r"^[^#]*build_algo\(", x.code, flags=re.MULTILINE) for x in blocks)
        for block in blocks:
            groups.setdefault(page.name if builds else "pages", []).append((page, block))
    for path in package_files():
        folder = "/".join(path.relative_to(ROOT).parts[:2])
        for docstring in docstrings(path):
            for block in code_blocks(docstring.code):
                moved = Block(block.code, docstring.line + block.line)
                groups.setdefault(folder, []).append((path, moved))
    return groups


def doctest_params() -> list:
    found = []
    for path in package_files():
        found += params(path, [block for block in docstrings(path) if ">>>" in block.code])
    return found


CODE = code_groups()
# Each block in a namespace of its own: it has to import what it uses, as its reader would. Empty
# lines stand for what comes before it, so that a traceback names file and line.
RUN_BLOCKS = """
import json, sys
for path, code, line in json.load(sys.stdin):
    exec(compile("\\n" * line + code, path, "exec"), {"__name__": "__main__"})
"""


@pytest.mark.parametrize("blocks", CODE.values(), ids=CODE.keys())
def test_code_blocks_run(blocks, tmp_path):
    # In a process of its own, since examples start Ray.
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", RUN_BLOCKS],
        input=json.dumps([(str(path), *block) for path, block in blocks]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": python_path},
        check=False,
    )
    assert result.returncode == 0, result.stderr


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


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def prose(text: str) -> str:
    """Return a page without its code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def links(text: str) -> list[tuple[str, str]]:
    """Find the links and pictures of a page that lead to files: path and anchor."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [target.partition("#")[::2] for target in targets if "://" not in target]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for path, anchor in links(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {path}, which is not there"
        if anchor:
            found = anchors(target.read_text())
            assert anchor in found, f"{page.name} links to {path}#{anchor}; there are {found}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_are_there(page):
    """Paths in backticks, such as `tests/harness.py`, are those of files."""
    folders = "tests|docs|tuned_examples|rllib_attention"
    named = re.findall(rf"`((?:{folders})/[\w/.]+)`", page.read_text())
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_page_is_in_the_site():
    nav = (ROOT / ".mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"[\w/]+\.md", nav)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in SITE)


def test_the_site_is_linked_from_the_readme():
    assert ("docs/index.md", "") in links(README.read_text())


def test_links_are_found():
    page = (
        "[a](x.md) ![b](y.png) [c](x.md#some-part) [d](#here) [e](https://x.org)\n```\n[f](z)\n```"
    )
    assert links(page) == [("x.md", ""), ("y.png", ""), ("x.md", "some-part"), ("", "here")]
    assert anchors("# One page\n## RLlib's `part`, two\ntext") == {"one-page", "rllibs-part-two"}


def test_code_blocks_are_found_where_they_are():
    markdown = "Text\n```python\nx = 1\n\ny = 2\n```\n```bash\nls\n```\n"
    assert list(code_blocks(markdown)) == [Block("x = 1\n\ny = 2", 2)]
    restructured = "    .. code-block:: python\n\n        if x:\n            y()\n\n    Text"
    assert list(code_blocks(restructured)) == [Block("\nif x:\n    y()\n", 1)]


def test_marked_blocks_are_left_out():
    assert not list(code_blocks("<!-- no-test -->\n```python\n1 / 0\n```"))
    assert not list(code_blocks(".. no-test\n.. code-block:: python\n\n    1 / 0"))
