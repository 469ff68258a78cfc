"""Figures of a study, as matplotlib figures that belong to nobody: no pyplot, no global state.

Coefficient and solution are dimensionless, as the problems are. A field [i, j] is x = i / (S - 1), y = j / (S - 1): pictures
show its transpose with the origin at the lower left. A run keeps its colour in all figures (`style.run_colours`). Labels such as
`ddis-gn, 1 %` name a run and its percent of pairs (`style.run_label`). Texts are plain, for
mathematics between dollars is slow to set.
"""

import os
import sys

from ddis.errors import InputError


def _import_matplotlib() -> None:
    """Imports it with the user's settings, which others in this process may want, or without those that it does not accept.

    Such as MPLBACKEND of a notebook whose package is not installed here, or a matplotlibrc that is no text.
    """
    try:
        import matplotlib
    except (ValueError, OSError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
        kept = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
        os.environ["MATPLOTLIBRC"] = os.devnull
        try:
            import matplotlib  # noqa: F401
        except (ValueError, OSError) as error:
            raise InputError(f"matplotlib cannot be imported with the file matplotlibrc in this folder: {error}") from error
        finally:
            del os.environ["MATPLOTLIBRC"]
            os.environ.update({name: value for name, value in kept.items() if value is not None})


_import_matplotlib()
