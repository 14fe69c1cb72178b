"""What the package exports, with Ray, without it, and with one that is too old."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rllib_attention

ROOT = Path(rllib_attention.__file__).parents[1]
# Stands before a script: `import ray` then fails as if it were not installed.
WITHOUT_RAY = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""
# Stands before a script: `import ray` gives a stand-in of another version.
WITH_OLD_RAY = """
import sys, types
sys.modules["ray"] = types.ModuleType("ray")
sys.modules["ray"].__file__ = "ray/__init__.py"
sys.modules["ray"].__version__ = "2.9.3"
"""


def run(script: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def assert_runs(script: str) -> None:
    result = run(script)
    assert result.returncode == 0, result.stderr


def public_names():
    yield from rllib_attention.__all__


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_imports_and_has_a_docstring(name):
    value = getattr(rllib_attention, name)
    assert value.__doc__.strip()
    assert vars(rllib_attention)[name] is value  # kept: the lazy import happens once


def test_all_lists_what_the_table_has():
    assert sorted(rllib_attention.__all__) == sorted(["AttentionConfig", *rllib_attention._EXPORTS])
    assert set(rllib_attention.__all__) <= set(dir(rllib_attention))


def test_type_checkers_see_what_is_imported_lazily():
    tree = ast.parse(Path(rllib_attention.__file__).read_text())
    blocks = [n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    imports = [n for b in blocks for n in b.body if isinstance(n, ast.ImportFrom)]
    seen = {alias.name: n.module for n in imports for alias in n.names}
    written = rllib_attention._EXPORTS
    assert seen == {name: f"rllib_attention.{module}" for name, module in written.items()}


def test_unknown_names_are_attribute_errors():
    message = "module 'rllib_attention' has no attribute 'use_atention'"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        _ = rllib_attention.use_atention
    assert not hasattr(rllib_attention, "use_atention")


def test_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", rllib_attention.__version__)


# Without Ray


def test_the_config_works_without_ray():
    assert_runs(
        WITHOUT_RAY + "from rllib_attention import *\n"
        "from rllib_attention import __all__\n"
        "assert AttentionConfig().receptive_field == 63\n"
        "assert __all__ == ['AttentionConfig'], __all__\n"
        "assert 'ray' not in sys.modules\n"
    )


def test_every_module_of_nn_works_without_ray():
    assert_runs(
        WITHOUT_RAY + "import importlib, pkgutil\n"
        "import rllib_attention.nn as nn\n"
        "for module in pkgutil.walk_packages(nn.__path__, nn.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert 'ray' not in sys.modules\n"
    )


@pytest.mark.parametrize("name", rllib_attention._EXPORTS)
def test_names_that_need_ray_say_so_without_it(name):
    message = (
        f"ImportError: rllib_attention.{name} needs Ray, which is not installed. "
        'Fix: `pip install "ray[rllib]>=2.55,<2.61"`.'
    )
    assert run(WITHOUT_RAY + f"from rllib_attention import {name}").stderr.strip().endswith(message)


def test_a_broken_ray_is_not_taken_for_a_missing_one():
    script = WITHOUT_RAY.replace("name=name", "name='msgpack'")
    result = run(script + "import rllib_attention")
    assert result.returncode == 1
    assert "ModuleNotFoundError" in result.stderr


def test_a_folder_called_ray_is_not_taken_for_ray(tmp_path):
    (tmp_path / "ray").mkdir()
    # The search path without installed packages, as on a machine that has no Ray.
    assert_runs(
        f"import sys\nsys.path[:] = [{str(tmp_path)!r}, {str(ROOT)!r}] + "
        "[path for path in sys.path if 'site-packages' not in path]\n"
        "import ray, rllib_attention\n"
        "assert ray.__path__\n"
        "assert rllib_attention.__all__ == ['AttentionConfig']\n"
    )


def test_an_old_ray_is_refused_at_import():
    message = (
        "ImportError: rllib_attention needs ray[rllib]>=2.55,<2.61, found ray 2.9.3. "
        'Fix: `pip install "ray[rllib]>=2.55,<2.61"`.'
    )
    assert run(WITH_OLD_RAY + "import rllib_attention").stderr.strip().endswith(message)
