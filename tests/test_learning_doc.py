"""docs/learning.md: its Python blocks run, one after the other."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "learning.md"


def test_the_blocks_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert names["after"].share_of_gap > 0
