"""Pictures are the same bytes whatever the user's matplotlib, desktop, locale or home; what belongs together stays together."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddis.data.observations import Observations
from ddis.errors import InputError
from ddis.evaluation.figures import posterior
from ddis.evaluation.figures.style import drawable, to_png
from ddis.files import write_together
from ddis.grid import Space, square

MATPLOTLIBRC = """text.usetex: True
font.family: serif
font.size: 20
figure.dpi: 37
savefig.dpi: 41
savefig.bbox: tight
savefig.transparent: True
axes.facecolor: red
image.cmap: gray
axes.formatter.use_locale: True
no.such.key: 3
"""
PROGRAM = """import os, sys
sys.path.insert(0, sys.argv[1])
before = dict(os.environ)
import test_pictures
print(test_pictures.digest())
assert all(os.environ.get(name) == before.get(name) for name in ("MPLBACKEND", "MATPLOTLIBRC"))
"""


def picture(title: str = "poisson, ddis-gn") -> bytes:
    field, places = np.arange(16.0).reshape(4, 4), np.array([0.25, 0.5])
    where = np.stack([places, places], axis=1)
    data = Observations(("x", "y"), where, places, places, np.zeros(2, dtype=bool), np.zeros(2, dtype=np.int64))
    fields, labels = (field, field, np.stack([field] * 2)), ("$a$ (1)", "$u$ (1)")
    return to_png(posterior.picture(data, fields, (Space(square(4)),) * 2, labels, title), dpi=60)


def digest() -> str:
    return hashlib.sha256(picture()).hexdigest()


def settings(folder: Path) -> dict[str, dict[str, str]]:
    """Environments, by what a user has done to them."""
    (folder / "matplotlibrc").write_text(MATPLOTLIBRC)
    (folder / "no-text").write_bytes(b"\xff\xfe\xe4")
    inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8"}
    nowhere = {"MPLCONFIGDIR": "/proc/none", "HOME": "/proc/none", "MPLBACKEND": "qtagg", "TERM": "dumb", "COLUMNS": "20"}
    return {
        "notebook": inline,
        "a back end that is not there": {"MPLBACKEND": "nonsense", "MPLCONFIGDIR": str(folder)},
        "a matplotlibrc that is no text": {"MATPLOTLIBRC": str(folder / "no-text")},
        "no home": nowhere,
    }


def test_the_desktop_does_not_show(tmp_path):
    expected = digest()
    for name, changes in settings(tmp_path).items():
        own = {"PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]
        done = subprocess.run(command, env=os.environ | own | changes, capture_output=True, text=True, cwd=tmp_path.parent)
        assert (done.returncode, done.stdout.strip()) == (0, expected), f"{name}: {done.stderr}"


def test_settings_of_the_same_process_do_not_show_and_stay(tmp_path):
    import matplotlib  # not above: in other processes the package must import it first

    expected = digest()
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC.replace("no.such.key: 3\n", ""))
    with matplotlib.rc_context(fname=tmp_path / "matplotlibrc"):
        before = dict(matplotlib.rcParams)
        assert digest() == expected
        assert dict(matplotlib.rcParams) == before and before["text.usetex"]


def test_dollars_in_texts_from_elsewhere_are_drawn():
    assert drawable(r"u in $10^3$ K") == r"u in $10^3$ K"
    for text in ("5 $ a barrel", r"$\nonsense{$", "$a_$ and $b$"):
        assert picture(drawable(text))


def test_files_that_belong_together_appear_together_or_not_at_all(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*file/b\.md"):
        write_together({tmp_path / "a.csv": "1\n", tmp_path / "file" / "b.md": "2\n"})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    write_together({tmp_path / "a.csv": "ä\n", tmp_path / "b.png": b"\x89"})
    assert (tmp_path / "a.csv").read_bytes() == "ä\n".encode() and (tmp_path / "b.png").read_bytes() == b"\x89"
