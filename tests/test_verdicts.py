"""The claims at the top of docs/paper/README.md are those of the published studies."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.append(str(DOCS))
import verdicts  # noqa: E402


def test_the_page_has_what_the_studies_found():
    page = (DOCS / "paper" / "README.md").read_text(encoding="utf-8")
    shown = page.split("<!-- verdicts:begin -->\n")[1].split("<!-- verdicts:end -->")[0]
    assert shown.strip() == verdicts.table().strip()


def test_the_mean_over_problems_is_as_wide_as_if_all_errors_went_together():
    assert verdicts.mean([(1.0, 0.0, 3.0), (3.0, 1.0, 4.0)]) == pytest.approx((2.0, 0.5, 3.5))
