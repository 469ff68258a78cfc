"""docs/python.md: its blocks run, one after the other, in an empty folder; importing ddis needs no torch."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert [path.name for path in tmp_path.iterdir()] == ["posterior.png"]
    without, corrected = names["errors"]
    assert corrected < 0.85 * without and 0 < names["calls"] <= 12
    assert 0.8 < names["kriging"].misfit.ratio < 1.2
    assert names["result"].samples.shape == (16, 32, 32) and 0.8 < names["result"].misfit.ratio < 1.2


def test_importing_ddis_imports_no_torch():
    code = "import sys, ddis; assert 'torch' not in sys.modules and 'Posterior' in dir(ddis)"
    subprocess.run([sys.executable, "-c", code], check=True)
