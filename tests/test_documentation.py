"""What the documents say is run: every example of the README, every public docstring, every file that is named."""

from __future__ import annotations

import doctest
import fnmatch
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

import torchlogit

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "torchlogit"
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
# Lines that fetch and install are not run: the tests run where that has been done.
SET_UP = re.compile(r"(cd|git clone|(\S+ -m )?pip install|\S+ -m venv|source)\b")
SHELLS = {"sh", "bash", "shell", "console"}
PUBLIC = [name for name in torchlogit.__all__ if name != "__version__"]


@dataclass(frozen=True)
class Snippet:
    """One fenced block of a document."""

    language: str
    code: str
    place: str  # file:line of its first line


def snippets(document: Path) -> list[Snippet]:
    text = document.read_text(encoding="utf-8")
    return [
        Snippet(
            match["language"],
            textwrap.dedent(match["code"]),
            f"{document.name}:{text.count(chr(10), 0, match.start('code')) + 1}",
        )
        for match in FENCE.finditer(text)
    ]


def commands(snippet: Snippet) -> str:
    """The shell text of a block; of a console block, what follows the prompts."""
    if snippet.language != "console" and not re.search(r"^\$ ", snippet.code, re.MULTILINE):
        return snippet.code
    typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", snippet.code, re.MULTILINE)
    return "\n".join(re.sub(r"(\\\n)> ", r"\1", command) for command in typed) + "\n"


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def run_python(snippet: Snippet, namespace: dict[str, object]) -> None:
    if ">>>" in snippet.code:
        test = doctest.DocTestParser().get_doctest(snippet.code, namespace, snippet.place, snippet.place, 0)
        report: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(
            test, out=report.append, clear_globs=False
        )
        namespace.update(test.globs)
        assert result.failed == 0, "".join(report)
        return
    # The padding makes a traceback show the line of the document.
    padding = "\n" * (int(snippet.place.rpartition(":")[2]) - 1)
    exec(compile(padding + snippet.code, snippet.place.partition(":")[0], "exec"), namespace)


def run_shell(snippet: Snippet, folder: Path) -> None:
    script = []
    for line in commands(snippet).splitlines():
        words = line.split()
        if words[:1] == ["make"]:
            arguments = line.partition("#")[0].split()[1:]
            named = {word for word in arguments if not word.startswith("-") and "=" not in word}
            assert named <= makefile_targets(), f"{snippet.place}: the Makefile has no target for: {line}"
        elif not SET_UP.match(line):
            script.append(line)
    if not any(line.strip() and not line.lstrip().startswith("#") for line in script):
        return
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment["COLUMNS"] = "100"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{snippet.place}\n{snippet.code}\n{done.stdout}\n{done.stderr}"
    assert "Warning" not in done.stderr, f"{snippet.place}\n{done.stderr}"


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.slow
@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_the_examples_of_a_document_run_in_order_in_an_empty_folder(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for snippet in snippets(document):
        if snippet.language == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                run_python(snippet, namespace)
        elif snippet.language in SHELLS:
            run_shell(snippet, tmp_path)


def test_the_readme_shows_both_doors():
    found = snippets(ROOT / "README.md")
    assert any(s.language == "python" and "LogisticRegression" in s.code for s in found)
    assert any(s.language in SHELLS and re.search(r"^(\$ )?torchlogit ", s.code, re.MULTILINE) for s in found)


def test_a_block_without_a_language_is_not_overlooked():
    """A block is run or tagged ``text``: an untagged example would be an untested one."""
    untagged = [s.place for document in documents() for s in snippets(document) if not s.language]
    assert untagged == []


def section(text: str, title: str) -> str | None:
    """A section of a numpydoc docstring."""
    match = re.search(rf"^{title}\n-{{{len(title)}}}\n(.*?)(?=^\S[^\n]*\n-{{3,}}\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return match and match[1]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented_with_an_example(name):
    thing = getattr(torchlogit, name)
    text = inspect.getdoc(thing) or ""
    examples = section(text, "Examples")
    assert examples is not None, f"{name} has no Examples section"
    assert ">>>" in examples
    accepted = [p.name for p in inspect.signature(thing).parameters.values()]
    if accepted:
        described = re.findall(r"^([\w*][\w*, ]*?)(?: :.*)?$", section(text, "Parameters") or "", re.MULTILINE)
        names = [word.strip(" *") for line in described for word in line.split(",")]
        assert names == accepted


@pytest.mark.parametrize("name", PUBLIC)
def test_public_methods_have_docstrings(name):
    thing = getattr(torchlogit, name)
    if not inspect.isclass(thing):
        pytest.skip("a function")
    bare = [
        method
        for method, value in vars(thing).items()
        if not method.startswith("_") and callable(getattr(value, "__func__", value)) and not inspect.getdoc(value)
    ]
    assert bare == []


def repository_files() -> list[str]:
    """Files of the repository, relative to its root: tracked ones and new ones that are not ignored."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_the_architecture_names_only_what_exists():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    inline = re.findall(r"`([\w./*-]+(?:\.(?:py|md|toml|txt)|/))`", FENCE.sub("", text))
    fenced = [word for s in FENCE.finditer(text) for word in re.findall(r"[\w./*-]+\.(?:py|md|toml)\b", s["code"])]
    existing = [*repository_files()]
    existing += sorted({f"{parent.as_posix()}/" for name in existing for parent in Path(name).parents})
    missing = [
        name
        for name in [*inline, *fenced]
        if not any(fnmatch.fnmatch(f"/{path}", f"*/{name.removeprefix('./')}") for path in existing)
    ]
    assert missing == []


def test_the_architecture_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = [f"{path.stem}.py" for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")]
    packages = [f"{path.name}/" for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    assert [name for name in sorted(modules + packages) if not re.search(rf"(?<!\w){re.escape(name)}", text)] == []


def test_no_file_names_a_place_on_one_machine():
    folders = "|".join(["work", "home", "root", "Users"])
    absolute = re.compile(r"(?<![\w.~$})-])/(?:" + folders + r")/\w")
    found = []
    for name in repository_files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{i}" for i, line in enumerate(text.splitlines(), 1) if absolute.search(line)]
    assert found == []
