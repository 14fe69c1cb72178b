"""`docs/troubleshooting.md` quotes what the package says: each text is still in the source."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
# What stands in the page for something that an error fills in.
GAP = "…"


def said(node: ast.AST) -> str:
    """Returns a string as the source has it; what is filled in stays in braces."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    return "".join(said(part) for part in getattr(node, "values", []))


def texts() -> list[str]:
    """Returns every string of the package but docstrings."""
    found = []
    for path in (ROOT / "rllib_attention").rglob("*.py"):
        tree = ast.parse(path.read_text())
        alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [said(node) for node in ast.walk(tree) if id(node) not in alone]
    return [text for text in found if " " in text]


def quotes(page: str = PAGE) -> list[str]:
    """Returns the first cell of each row of the tables of texts."""
    tables = re.findall(r"^\| text \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, flags=re.MULTILINE)
    return [row.strip("| ").split(" | ")[0] for table in tables for row in table.splitlines()]


TEXTS = texts()


def is_said(quote: str, among: list[str]) -> bool:
    """Returns whether one text holds all parts of a quote, in their order."""
    pattern = ".*".join(re.escape(part.strip()) for part in quote.split(GAP))
    return any(re.search(pattern, text, flags=re.DOTALL) for text in among)


@pytest.mark.parametrize("quote", quotes())
def test_quoted_texts_are_in_the_source(quote):
    assert is_said(quote, TEXTS)


def test_quotes_are_found():
    page = "| text | fix |\n|---|---|\n| a `b` … c | d |\n| e | f |\n\n| symptom |\n|---|\n| g |\n"
    assert quotes(page) == ["a `b` … c", "e"]
    assert len(quotes()) > 80


def test_what_nobody_says_is_noticed():
    assert is_said("a `b` … c", ["nothing", "a `b` {x}, c."])
    assert not is_said("c … a `b`", ["nothing", "a `b` {x}, c."])
    assert not is_said("AttentionConfig is delicious", TEXTS)
