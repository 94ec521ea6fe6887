"""The wheel in an empty environment, run from outside the checkout beside a user's own train.py and loaders/."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Each floor's folder, and the name its packages get when installed.
FLOORS = {
    "synthshards": "synthshards",
    "pipelines": "synthshards.pipelines",
    "loaders": "synthshards.loaders",
    "train": "synthshards.train",
}


def run(*command: str, cwd: Path, **env: str) -> str:
    """Run a command that must succeed; its output."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy of the tracked files by way of the source archive."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0") if (ROOT / ".git").exists() else []
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    if not tracked:
        pytest.skip("not a git checkout: there is no list of the project's files")
    run(sys.executable, "-m", "build", "--outdir", str(work / "dist"), str(source), cwd=work)
    return next((work / "dist").glob("*.whl"))


def test_every_folder_of_sources_is_a_package() -> None:
    """setuptools finds no packages by itself where folders are renamed: pyproject.toml lists them."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        ".".join([name, *path.parent.relative_to(ROOT / floor).parts])
        for floor, name in FLOORS.items()
        for path in (ROOT / floor).rglob("__init__.py")
    }
    assert listed == sorted(folders)


def test_every_folder_of_sources_has_an_init() -> None:
    """Without one a folder imports all the same in a checkout, and is missing from the wheel."""
    folders = {path.parent for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_wheel_holds_one_package_and_all_of_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"synthshards"}, "anything else would shadow a user's own modules"
    source = wheel.parents[1] / "source"
    for floor, name in FLOORS.items():
        for path in filter(Path.is_file, (source / floor).rglob("*")):
            assert f"{name.replace('.', '/')}/{path.relative_to(source / floor)}" in names


@pytest.mark.slow
def test_installed_wheel_works_beside_a_users_own_modules(wheel: Path, tmp_path: Path) -> None:
    env_dir, home = tmp_path / "env", tmp_path / "research"
    run(sys.executable, "-m", "venv", str(env_dir), cwd=tmp_path)
    python = str(env_dir / "bin" / "python")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel), cwd=tmp_path)
    (home / "loaders").mkdir(parents=True)
    (home / "loaders" / "__init__.py").write_text("WHOSE = 'the user'\n")
    (home / "train.py").write_text("WHOSE = 'the user'\n")
    (home / "pipelines.py").write_text("raise RuntimeError('the user has a pipelines.py, too')\n")
    script = str(env_dir / "bin" / "synthshards")
    cache = {"SYNTHSHARDS_CACHE": str(tmp_path / "cache")}
    out = run(script, "build", "depo", "--shards", "2", "--shard-examples", "64", cwd=home, **cache)
    assert "2 shards made" in out
    assert "ok, 2 shards" in run(script, "verify", "data/depo/train", "--rederive", cwd=home, **cache)
    code = (
        "import sys, loaders, train, synthshards\n"
        "assert (loaders.WHOSE, train.WHOSE) == ('the user', 'the user')\n"
        "task = synthshards.make_task('depo', N=5)\n"
        "assert task.validate_example(task.example(0, 'train', 3))\n"
        "import synthshards.pipelines.build\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    task.iterable(0)\n"
        "except synthshards.UsageError as error:\n    print(error)\n"
    )
    schema = (
        "import importlib.resources\n"
        "print((importlib.resources.files('synthshards.dataset') / 'manifest.schema.json').read_text(), end='')\n"
    )
    assert run(python, "-c", schema, cwd=home) == (ROOT / "docs" / "manifest.schema.json").read_text()
    assert "pip install 'synthshards[torch]'" in run(python, "-c", code, cwd=home, **cache)
    listed = run(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check", cwd=home)
    assert "torch" not in listed.lower()
