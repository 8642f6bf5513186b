"""What the pages say of the tree is true of the tree."""

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_HOPS = 20
MOST_TOP_FILES = 4


def tree_of_the_readme():
    """Paths named in README's tree: the leading names of a line, and those behind a semicolon."""
    text = (ROOT / "README.md").read_text().partition("## Where things are")[2]
    block = text.partition("```")[2].partition("```")[0]
    parents: list[str] = []
    for line in block.strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        names = list(itertools.takewhile(_is_path, line.split()))
        assert names, line
        parents = [*parents[:depth], names[0]]
        for name in [*names, *re.findall(r";  (\S+?):? ", line)]:
            yield "".join(parents[:depth]) + name.rstrip(":")


def _is_path(word):
    return word.endswith("/") or re.fullmatch(r"[\w-]+\.\w+", word) is not None


def hops():
    text = (ROOT / "docs/architecture.md").read_text()
    return re.findall(r"^\| (\d+) \| `([^`]+)` \|", text, re.MULTILINE)


def test_every_path_of_the_readmes_tree_exists():
    paths = list(tree_of_the_readme())
    assert len(paths) > 25
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_room_stands_in_the_readmes_tree():
    named = {path.rstrip("/") for path in tree_of_the_readme()}
    rooms = {
        str(path.parent.relative_to(ROOT))
        for package in ("raysplit", "envs", "tuning")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert rooms - {"raysplit", "envs", "tuning"} - named == set(), "a room without a line"


def test_the_way_of_one_number_is_short_and_each_hop_exists():
    found = hops()
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    assert 10 < len(found) <= MOST_HOPS
    assert [path for _, path in found if not (ROOT / path).is_file()] == []


def test_few_files_lie_directly_in_the_package():
    assert len(list((ROOT / "raysplit").glob("*.py"))) <= MOST_TOP_FILES


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_files_and_links_that_a_page_names_exist(page):
    text = (ROOT / "docs" / page).read_text()
    sources = re.findall(r"`((?:raysplit|envs|tuning|tools|tests|bench)/[\w/-]+\.\w+)`", text)
    assert [path for path in sources if not (ROOT / path).exists()] == []
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    docs = ROOT / "docs"
    inside = [(docs / link).resolve() for link in links]  # the site knows nothing outside of it
    assert [path for path in inside if not (path.exists() and path.is_relative_to(docs))] == []
