"""What is built from the source: a wheel and an sdist that hold all that they should."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import rllib_attention
from rllib_attention.compat import RAY_REQUIREMENT

ROOT = Path(rllib_attention.__file__).parents[1]


def run(*command: str, cwd: Path, **env: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def sources() -> set[str]:
    package = ROOT / "rllib_attention"
    assets = package / "inspection" / "assets"
    paths = [*package.rglob("*.py"), package / "py.typed", *assets.iterdir()]
    return {str(path.relative_to(ROOT)) for path in paths}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder), ".", cwd=ROOT)
    [path] = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        [metadata] = [name for name in held if name.endswith(".dist-info/METADATA")]
        fields = message_from_bytes(archive.read(metadata))
    assert {name for name in held if ".dist-info/" not in name} == sources()
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert fields["Version"] == rllib_attention.__version__
    # Without what only extras require.
    required = [n.replace(" ", "") for n in fields.get_all("Requires-Dist") if "extra ==" not in n]
    [ray] = [name for name in required if name.startswith("ray")]
    assert set(re.split(r"[\],]", ray)) == set(re.split(r"[\],]", RAY_REQUIREMENT))


@pytest.mark.slow
def test_the_wheel_installs_and_works_elsewhere(wheel, tmp_path):
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(target)]
    run(*pip, str(wheel), cwd=tmp_path)
    script = (
        "import rllib_attention\n"
        "for name in rllib_attention.__all__:\n"
        "    getattr(rllib_attention, name)\n"
        "print(rllib_attention.__file__)\n"
    )
    found = run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(target))
    assert Path(found.strip()).parents[1] == target


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_without_anything(wheel, tmp_path):
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    run(python, "-m", "pip", "install", "--no-deps", "-q", str(wheel), cwd=tmp_path)
    script = "from rllib_attention import AttentionConfig; print(AttentionConfig().window)"
    assert int(run(python, "-c", script, cwd=tmp_path, PYTHONPATH=""))


@pytest.mark.slow
def test_a_wheel_can_be_built_from_the_sdist(tmp_path):
    script = "import os, sys, hatchling.build as b; print(b.build_sdist(sys.argv[1]))"
    folder = tmp_path / "hatchling"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "hatchling"]
    run(*pip, cwd=tmp_path)
    command = [sys.executable, "-c", script, str(tmp_path)]
    name = run(*command, cwd=ROOT, PYTHONPATH=str(folder)).strip().splitlines()[-1]
    with tarfile.open(tmp_path / name) as archive:
        held = {member.partition("/")[2] for member in archive.getnames()}
    assert sources() | {"README.md", "LICENSE", "pyproject.toml", "constraints.txt"} <= held
    assert {"tests/test_packaging.py", "CHANGELOG.md"} <= held
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path)]
    run(*pip, str(tmp_path / name), cwd=tmp_path)
    [built] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        assert sources() <= set(archive.namelist())
