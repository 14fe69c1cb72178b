"""The package's layout, read from its imports: floors, rooms, and no circles.

Imports go downwards only; one in a function, or for type checkers, is an arrow like any other.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import rllib_attention

ROOT = Path(rllib_attention.__file__).parent
# From the ground up. Rooms of one floor do not know each other.
FLOORS = [
    {"compat", "log", "onnx_policy", "rllib_keys"},
    {"config_checks"},
    {"config"},
    {"search_space", "nn"},
    {"encoder"},
    {"new_stack", "old_stack"},
    {"sources", "export"},
    {"dispatch"},
    {"policy"},
    {"inspection"},
    {"__init__", "__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")
}


def own_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules and names of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            module, names = node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            [module, *others], names = [alias.name for alias in node.names], [""]
            assert not others, f"{path}:{node.lineno}: one import a line"
        else:
            continue
        if module.split(".")[0] == "rllib_attention":
            yield from ((module.partition(".")[2], name) for name in names)


def target(module: str, name: str) -> str:
    """Return which of `MODULES` an import reads: a module, or a package's `__init__`."""
    for candidate in (f"{module}.{name}", module, f"{module}.__init__"):
        if candidate.strip(".") in MODULES:
            return candidate.strip(".")
    raise AssertionError(f"no module rllib_attention.{module}")


ARROWS = {
    module: sorted({target(*imported) for imported in own_imports(path)} - {module})
    for module, path in MODULES.items()
}


def room(module: str) -> str:
    return module.split(".")[0]


def circles() -> list[str]:
    """Return the circles of imports, each from its first module on."""
    found, done = set(), set()

    def follow(module: str, path: list[str]) -> None:
        if module in path:
            circle = path[path.index(module) :]
            first = circle.index(min(circle))
            found.add(" -> ".join([*circle[first:], *circle[:first], min(circle)]))
        elif module not in done:
            for other in ARROWS[module]:
                follow(other, [*path, module])
            done.add(module)

    for module in ARROWS:
        follow(module, [])
    return sorted(found)


def test_every_module_has_a_floor():
    assert {room(module) for module in MODULES} <= set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module):
    for other in ARROWS[module]:
        assert room(other) == room(module) or FLOOR[room(other)] < FLOOR[room(module)], (
            f"{module} imports {other}, which is not on a floor below it"
        )


def test_there_are_no_circles():
    assert circles() == []


def test_nn_is_pure_torch():
    allowed = {*sys.stdlib_module_names, "numpy", "torch", "rllib_attention"}
    for module, path in MODULES.items():
        if room(module) != "nn":
            continue
        assert {room(other) for other in ARROWS[module]} <= {"nn"}
        for node in ast.walk(ast.parse(path.read_text())):
            names = [getattr(node, "module", None)] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            outside = {name.split(".")[0] for name in names} - allowed
            assert not outside, f"{module} imports {outside}"


def test_only_these_modules_work_without_ray():
    rooms = {"config", "config_checks", "rllib_keys", "log", "nn", "onnx_policy", "__init__"}
    without = {module for module in MODULES if room(module) in rooms}
    for module in without:
        text = MODULES[module].read_text()
        assert not re.search(r"^\s*(from|import) ray\b", text, re.MULTILINE), module


def constants(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the value, as written, of each constant of a module."""
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        [name] = getattr(node, "targets", None) or [node.target]
        pairs = [(name, node.value)]
        if isinstance(name, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(name.elts, node.value.elts, strict=True))
        for name, value in pairs:
            if isinstance(name, ast.Name) and re.fullmatch(r"_?[A-Z][A-Z0-9_]+", name.id):
                yield name.id, ast.unparse(value)


def test_constants_have_one_home():
    homes = defaultdict(set)
    for module, path in MODULES.items():
        for name, value in constants(path):
            # Private ones of one name may be of two meanings, and have two values then.
            homes[f"{name} = {value}" if name.startswith("_") else name].add(module)
    assert len(homes) > 20  # the search finds constants
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}
