"""Cached kernels are never stale, never fatal, and no other law than plain Python's.

Each test runs copies of the package in subprocesses that share a cache folder, as successive versions of a checkout do.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import golden_rows
import numpy as np
import pytest
from helpers import Ended, copy_package, edit, python

from synthshards.digest import ContentDigest
from synthshards.errors import UsageError
from synthshards.kernels import jit
from synthshards.kernels.jit import JIT_DISABLED, cache_root, sources_digest

#: Prints where the package lies, then what three kernels make: the words of a stream (compiled in 0.3 s), and rows with
#: 16-bit and with 32-bit ids (2 s each; two cache entries of one function).
MAKE = """
import sys
import numpy as np
import golden_rows, synthshards
from synthshards.kernels import rng
print(synthshards.__file__)
for what in sys.argv[1:]:
    if what == "words":
        print(rng.words(np.arange(2, dtype=np.uint64), np.uint64(7), 50).tobytes().hex())
    else:
        bos = {"rows": 0, "wide rows": 70_000}[what]
        print(golden_rows.content(synthshards.make_task("depo1-225", bos_token_id=bos), 50))
"""
#: An edit in each helper module, which the kernel in depo.py only inlines: (file, old, new).
EDITS = {
    "rng": ("kernels/rng.py", "_M0, _M1 = np.uint64(0xD2511F53)", "_M0, _M1 = np.uint64(0xD2511F55)"),
    "sizes": (
        "tasks/node_counts.py",
        "    s, x = next_word(s)\n",
        "    s, x = next_word(s)\n    s, x = next_word(s)\n",
    ),
    "names": ("tasks/node_names.py", "            count += stamps[word] != stamp\n", "            count += 1\n"),
}


def make(what: str, package: Path, cache: Path, **env: str) -> list[str]:
    """What `package` makes ("words", "rows", "wide rows", several with commas) in a process of its own."""
    names = what.split(", ")
    where, *made = python("-c", MAKE, *names, package=package, SYNTHSHARDS_CACHE=str(cache), **env).stdout.split()
    assert Path(where).parent == package
    assert len(made) == len(names)
    return made


def files(cache: Path) -> dict[str, tuple[int, int]]:
    """Each cache file's inode and modification time: a file that is written anew has others."""
    return {str(p.relative_to(cache)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in cache.rglob("*.nb?")}


def entries(cache: Path, suffix: str, kernel: str = "rng.words") -> list[Path]:
    """The cache files of one kernel."""
    return sorted(cache.rglob(f"{kernel}-*.{suffix}"))


Warm = tuple[Path, Path, list[str]]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Warm:
    """A copy of the package, a cache folder that it has filled, and the words and rows it made."""
    folder = tmp_path_factory.mktemp("warm")
    package, cache = copy_package(folder / "package"), folder / "cache"
    made = make("words, rows", package, cache)
    for kernel in ("rng.words", "depo._fill"):
        assert [len(entries(cache, suffix, kernel)) for suffix in ("nbi", "nbc")] == [1, 1]
    return package, cache, made


@pytest.fixture
def cache(warm: Warm, tmp_path: Path) -> Path:
    """The warm cache folder, copied to be damaged."""
    return Path(shutil.copytree(warm[1], tmp_path / "cache"))


def test_a_plain_copy_reuses_the_cache(warm: Warm, tmp_path: Path) -> None:
    _package, cache, right = warm
    before = files(cache)
    assert make("words, rows", copy_package(tmp_path), cache) == right
    assert files(cache) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_helper_changes_rows_under_a_warm_cache(warm: Warm, cache: Path, tmp_path: Path, name: str) -> None:
    package = copy_package(tmp_path)
    file, old, new = EDITS[name]
    edit(package / file, old, new)
    changed = make("rows", package, cache)
    assert changed != warm[2][1:]
    if name == "rng":
        assert changed == make("rows", package, tmp_path / "empty")
        assert make("words", package, cache) != warm[2][:1]


def test_the_digest_of_sources_sees_every_source_file(tmp_path: Path) -> None:
    package = copy_package(tmp_path)
    before = sources_digest(package)
    for path in sorted(package.rglob("*.py")):
        sources_digest.cache_clear()
        text = path.read_text()
        path.write_text(text + "# edited\n")
        assert sources_digest(package) != before, path
        path.write_text(text)
    sources_digest.cache_clear()
    assert sources_digest(package) == before
    sources_digest.cache_clear()
    (package / "errors.py").rename(package / "formats" / "errors.py")
    assert sources_digest(package) != before
    sources_digest.cache_clear()


@pytest.mark.parametrize("place", ["beside", "in another sub-folder", "a constant in a module without kernels"])
def test_a_helper_of_another_floor_is_seen(tmp_path: Path, place: str) -> None:
    """The loaders' kernels inline helpers of `loaders/`, which is no folder of the core."""
    floor = tmp_path / "floor"
    for folder in (floor, floor / "a", floor / "b"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    decorated = "from synthshards.kernels.jit import helper\n@helper\ndef near(x):\n    return x + 1\n"
    constant = "ONE = 1\n"
    near, text = {
        "beside": ("a/near.py", decorated),
        "in another sub-folder": ("b/near.py", decorated),
        "a constant in a module without kernels": ("near.py", constant),
    }[place]
    (floor / near).write_text(text)
    module = "floor." + near.removesuffix(".py").replace("/", ".")
    body = f"from {module} import {'ONE' if text == constant else 'near'}\n"
    result = "x + ONE" if text == constant else "near(x)"
    (floor / "a" / "far.py").write_text(
        f"from synthshards.kernels.jit import kernel\n{body}@kernel\ndef far(x):\n    return {result}\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from floor.a.far import far; print(far(1))"

    def run() -> str:
        return python("-c", code, SYNTHSHARDS_CACHE=str(tmp_path / "cache")).stdout.strip()

    assert [run(), run()] == ["2", "2"]
    edit(floor / near, "1", "5")
    assert run() == "6"


def test_floors_between_are_seen_and_floors_above_are_not(warm: Warm, cache: Path, tmp_path: Path) -> None:
    """A kernel of the loaders may hold a constant of `pipelines/`; nothing it holds can come from `train/`."""
    package = copy_package(tmp_path)
    for floor in ("pipelines", "loaders", "train"):
        (tmp_path / floor).mkdir()
        (tmp_path / floor / "__init__.py").touch()
        (tmp_path / floor / "near.py").write_text("ONE = 1\n")
    (tmp_path / "loaders" / "far.py").write_text(
        "from synthshards.kernels.jit import kernel\nfrom pipelines.near import ONE\n"
        "@kernel\ndef far(x):\n    return x + ONE\n"
    )

    def run() -> str:
        code = "from loaders.far import far; print(far(1))"
        return python("-c", code, package=package, SYNTHSHARDS_CACHE=str(cache)).stdout.strip()

    assert run() == "2"
    before = files(cache)
    edit(tmp_path / "train" / "near.py", "1", "5")
    assert run() == "2"
    assert make("words", package, cache) == warm[2][:1]
    assert files(cache) == before, "an edit of train/ compiled what lies below it anew"
    edit(tmp_path / "pipelines" / "near.py", "1", "5")
    assert run() == "6"
    assert make("words", package, cache) == warm[2][:1]
    assert {path: files(cache)[path] for path in before} == before


def test_files_of_one_name_in_two_folders_share_no_entry(tmp_path: Path) -> None:
    """Each task has its task.py; two functions of one name on one line of theirs are two kernels."""
    for folder, number in (("", 0), ("a", 1), ("b", 2)):
        (tmp_path / "floor" / folder).mkdir()
        (tmp_path / "floor" / folder / "__init__.py").touch()
        (tmp_path / "floor" / folder / "task.py").write_text(
            f"from synthshards.kernels.jit import kernel\n@kernel\ndef fill(x):\n    return x + {number}\n"
        )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from floor.a import task as a\nfrom floor.b import task as b\n"
        "print(a.fill(0), b.fill(0))"
    )
    for _ in range(2):
        assert python("-c", code, SYNTHSHARDS_CACHE=str(tmp_path / "cache")).stdout.split() == ["1", "2"]


def test_a_helper_beside_a_kernel_outside_any_package_is_seen(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text(
        "from synthshards.kernels.jit import helper\n@helper\ndef near(x):\n    return x + 1\n"
    )
    (tmp_path / "far.py").write_text(
        "from synthshards.kernels.jit import kernel\nfrom near import near\n@kernel\ndef far(x):\n    return near(x)\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from far import far; print(far(1))"

    def run() -> str:
        return python("-c", code, SYNTHSHARDS_CACHE=str(tmp_path / "cache")).stdout.strip()

    assert [run(), run()] == ["2", "2"]
    edit(tmp_path / "near.py", "x + 1", "x + 5")
    assert run() == "6"


@pytest.mark.parametrize("kept", ["nothing", "half", "all but one byte"])
@pytest.mark.parametrize("suffix", ["nbc", "nbi"])
def test_a_truncated_entry_is_replaced(warm: Warm, cache: Path, suffix: str, kept: str) -> None:
    package, _cache, right = warm
    (path,) = entries(cache, suffix)
    data = path.read_bytes()
    path.write_bytes(data[: {"nothing": 0, "half": len(data) // 2, "all but one byte": len(data) - 1}[kept]])
    damaged = path.stat().st_ino
    assert make("words", package, cache) == right[:1]
    assert path.stat().st_ino != damaged
    healed = files(cache)
    assert make("words", package, cache) == right[:1]
    assert files(cache) == healed, "the replaced entry is not used"


@pytest.mark.slow
def test_an_entry_of_another_signature_is_not_run(warm: Warm, cache: Path) -> None:
    # Two processes that fill an empty cache at once can leave this behind.
    package, _cache, right = warm
    both = make("rows, wide rows", package, cache)
    narrow, wide = entries(cache, "nbc", "depo._fill")
    kept = wide.read_bytes()
    wide.write_bytes(narrow.read_bytes())
    narrow.write_bytes(kept)
    assert make("rows, wide rows", package, cache) == both
    assert both[:1] == right[1:]


@pytest.mark.parametrize("name", ["SYNTHSHARDS_CACHE", "NUMBA_CACHE_DIR"])
def test_a_cache_folder_that_cannot_be_made(warm: Warm, tmp_path: Path, name: str) -> None:
    package, _cache, right = warm
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "cache"
    if name == "SYNTHSHARDS_CACHE":
        assert make("words, rows", package, folder) == right
    else:
        assert make("words", package, tmp_path / "cache", NUMBA_CACHE_DIR=str(folder)) == right[:1]


@pytest.mark.parametrize("state", ["empty", "warm", "truncated"])
def test_a_read_only_cache_folder(warm: Warm, cache: Path, state: str) -> None:
    package, _cache, right = warm
    if state == "empty":
        shutil.rmtree(cache)
        cache.mkdir()
    if state == "truncated":
        for path in cache.rglob("*.nb?"):
            path.write_bytes(path.read_bytes()[:100])
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    before = files(cache)
    for folder in folders:
        folder.chmod(0o555)
    try:
        if os.access(cache, os.W_OK):
            pytest.skip("this user (root) writes to read-only folders")
        assert make("words", package, cache) == right[:1]
        assert files(cache) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_numba_cache_dir_is_honoured(warm: Warm, tmp_path: Path) -> None:
    package, _cache, right = warm
    numba, ours = tmp_path / "numba", tmp_path / "ours"
    assert make("words", package, ours, NUMBA_CACHE_DIR=str(numba)) == right[:1]
    assert len(entries(numba, "nbc")) == 1
    assert not ours.exists()


def test_cache_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("SYNTHSHARDS_CACHE", "/somewhere/else")
    assert cache_root() == Path("/somewhere/else")
    monkeypatch.setenv("SYNTHSHARDS_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/synthshards")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path("/home/somebody/.cache/synthshards")
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_root() == Path("/home/somebody/Library/Caches/synthshards")


def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, without a HOME: a number that a container gave."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "SYNTHSHARDS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(monkeypatch)
    assert cache_root() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/synthshards")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/x")  # relative: to be ignored
    assert cache_root() is None


def test_kernels_without_a_home_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(monkeypatch)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)

    @jit.kernel
    def add(a: int, b: int) -> int:
        return a + b

    assert add(2, 3) == 5


def test_the_command_line_gives_a_home_to_who_has_none(
    cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some releases of Matplotlib and of PyTorch's compiler end without one."""
    nobody(monkeypatch)
    assert cli("--version").code == 0
    assert Path.home() == Path("/")
    assert getpass.getuser().startswith("uid-")


def test_a_cache_folder_is_expanded_and_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYNTHSHARDS_CACHE", "~/x")
    assert cache_root() == tmp_path / "home" / "x"
    monkeypatch.chdir(tmp_path)
    relative = f"cache-{tmp_path.name}"
    monkeypatch.setenv("SYNTHSHARDS_CACHE", relative)
    assert cache_root() == tmp_path / relative
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cache_root() == tmp_path / relative


@pytest.mark.parametrize("text", ["~no-such-user-at-all/x", "s3://bucket/cache"])
def test_a_cache_folder_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SYNTHSHARDS_CACHE", text)
    with pytest.raises(UsageError, match=rf"SYNTHSHARDS_CACHE='{text}': .*; legal: a local folder"):
        cache_root()


#: Prints whether compilation was off, and the digests of the rows below.
PLAIN = """
import json
import golden_rows
from synthshards.kernels.jit import JIT_DISABLED
print(json.dumps([JIT_DISABLED, {name: golden_rows.content(task, 3) for name, task in golden_rows.cases().items()}]))
"""


@pytest.mark.slow
@pytest.mark.skipif(JIT_DISABLED, reason="nothing to compare with")
def test_plain_python_makes_the_same_rows() -> None:
    # Three rows of every golden case. `.py_func` would be no reference: what it calls stays compiled.
    disabled, plain = json.loads(python("-W", "ignore", "-c", PLAIN, NUMBA_DISABLE_JIT="1").stdout)
    assert disabled
    assert plain == {name: golden_rows.content(task, 3) for name, task in golden_rows.cases().items()}
    assert 3 * len(plain) >= 50


def test_content_sees_a_single_token() -> None:
    # The digest that the comparisons above rest on does not pass over small changes.
    task = golden_rows.cases("depo")["depo/smallest"]
    digests = set()
    for at in (None, 0, 5):
        batch = task.batch(0, "train", 0, 4)
        if at is not None:
            batch.input_ids[at] ^= np.uint16(1)
        digest = ContentDigest(task.columns)
        digest.update(batch)
        digests.add(digest.hexdigest())
    assert len(digests) == 3
