"""What the documentation shows is what happens: its blocks are run in order, page by page, as a reader would do it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docs.pages import LANGUAGES, ROOT, Block, Command, PageError, blocks, commands, missing, pages
from tests.docs.session import BlockFailedError, Session

from stepwell.resources import ParsedManifests, parse_manifests

PAGES = pages()
YAML_BLOCKS = [block for page in PAGES for block in blocks(page) if block.language == "yaml" and block.is_run]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    # The pages of the examples are read at the root of the repository.
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with Session(tmp_path) as session:
        for block in blocks(page):
            if block.is_run:
                session.run(block)


def test_the_code_of_all_pages_passes_mypy_strict(tmp_path: Path) -> None:
    """The pages say that type checkers help: so their own code is checked, each page as one module."""
    modules = []
    for page in PAGES:
        code = [block for block in blocks(page) if block.language == "python" and block.is_run]
        main = [block.text for block in code if "file" not in block.markers]
        files = {block.markers["file"]: block.text for block in code if "file" in block.markers}
        if main:
            files[f"{page.stem.lower().replace('-', '_')}_page.py"] = "\n".join(main)
        for name, text in files.items():
            modules.append(tmp_path / name)
            modules[-1].write_text(text, "utf-8")
    assert len(modules) >= 3

    checked = subprocess.run(  # noqa: S603  (mypy, on what was written above)
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", *map(str, modules)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_names_a_language_that_the_tests_know(page: Path) -> None:
    strange = [f"{block.place}: {block.language!r}" for block in blocks(page) if block.language not in LANGUAGES]

    assert strange == []


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=lambda block: block.place)
def test_manifests_in_the_docs_are_sound(block: Block) -> None:
    documents = [one for one in yaml.safe_load_all(block.text) if one is not None]
    assert documents != []
    ours = [
        one for one in documents if isinstance(one, dict) and str(one.get("apiVersion")).startswith("stepwell.dev/")
    ]

    parsed = parse_manifests(block.text, block.place) if ours else ParsedManifests()

    assert [str(problem) for problem in parsed.problems] == []
    assert len(parsed.workflows) + len(parsed.runs) == len(ours)


_LINK = re.compile(r"\]\((?!https?://|mailto:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in _LINK.finditer(prose):
        target = page.parent / link["path"] if link["path"] else page
        if not target.exists() or (link["anchor"] and link["anchor"] not in anchors(target)):
            broken.append(link[0])

    assert broken == []


def test_the_map_of_the_architecture_page_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:runtime|operator|tests|examples|crds|charts)/[\w./-]+)`", text)

    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def block_of(text: str, language: str = "python", **markers: str) -> Block:
    named = {key.replace("_", " "): value for key, value in markers.items()}
    return Block(page="page.md", line=3, language=language, text=text, markers=named)


def test_blocks_of_python_share_names_and_may_await(tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        session.run(block_of("import asyncio\nvalue = await asyncio.sleep(0, 41)\n"))
        session.run(block_of("assert value + 1 == 42\n"))
        with pytest.raises(BlockFailedError, match=r"page\.md:3:\n(.|\n)*line 4, in <module>(.|\n)*AssertionError"):
            session.run(block_of("other = 1\nassert value == other\n"))


def test_tests_in_a_block_are_called(tmp_path: Path) -> None:
    with Session(tmp_path) as session, pytest.raises(BlockFailedError, match="called"):
        session.run(block_of("async def test_it():\n    raise ValueError('called')\n"))


def test_a_file_is_there_for_the_shell_and_for_python(tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        session.run(block_of("VALUE = 7\n", file="shop.py"))
        session.run(block_of("import shop\nassert shop.VALUE == 7\n"))
        session.run(block_of("$ cat shop.py\nVALUE = 7\n", "console"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("$ echo one\ntwo\n", "not printed: two"),
        ("$ false\n", "ended with 1"),
        ("$ cd nowhere\n", "ended with 1"),
        ("$ printf 'a\\nb\\n'\nb\na\n", "not printed: a"),
    ],
)
def test_a_command_that_does_otherwise_is_told(tmp_path: Path, text: str, complaint: str) -> None:
    with Session(tmp_path) as session, pytest.raises(BlockFailedError, match=complaint):
        session.run(block_of(text, "console"))


def test_the_shell_remembers_and_a_status_can_be_expected(tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        session.run(block_of("$ word=kept; mkdir there; cd there\n", "console"))
        session.run(block_of("$ echo $word in $(basename $PWD)\nkept in there\n$ (exit 3)\n", "console", exits="3"))


def test_a_command_in_the_background_is_waited_for_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys\nprint('ready')\nprint(sys.stdin.read(), end='')\nimport time\ntime.sleep(600)\n"
    )
    with Session(tmp_path) as session:
        session.run(block_of("$ python slow.py\nready\n", "console", background="ready"))
        session.run(block_of("$ kill -9 $!\n", "console"))


@pytest.mark.parametrize(
    ("expected", "output", "first_missing"),
    [
        (("run 01990a4e-7c1f-7abc-8def-0123456789ab",), "run 0199ffff-7c1f-7abc-8def-0123456789ab", None),
        (("at 2026-01-01T00:00:00Z",), "at   2026-05-17 10:11:12.5Z", None),
        (("signup-d6dsf Completed 1m5s",), "signup-xk2vv   Completed   3s", None),
        (("a ... c",), "a b b c", None),
        (("...", "z"), "a\nb\nz", None),
        (("a ... d",), "a b c", "a ... d"),
        (("b", "a"), "a\nb", "a"),
    ],
)
def test_output_is_compared_without_what_changes(expected: tuple[str, ...], output: str, first_missing: Any) -> None:
    assert missing(expected, output) == first_missing


def test_a_long_command_may_go_over_lines() -> None:
    found = commands(block_of("$ echo a \\\n    b\na b\n$ cat <<END\n> text\n> END\n", "console"))

    assert found == [
        Command(line=3, text="echo a \\\n    b", expected=("a b",)),
        Command(line=6, text="cat <<END\ntext\nEND", expected=()),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- not run -->\n```bash\nx\n```\n", "with a value"),
        ("<!-- hidden: yes -->\n```bash\nx\n```\n", "known are"),
        ("<!-- file: a.py -->\n\nProse.\n", "before no block"),
        ("```python\nx = 1\n", "never ends"),
    ],
)
def test_a_malformed_page_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str) -> None:
    monkeypatch.setattr("tests.docs.pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")

    with pytest.raises(PageError, match=complaint):
        blocks(page)
