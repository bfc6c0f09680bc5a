"""What an embed may show, as people write it."""

import pytest

from bemi.errors import UsageError
from bemi.ui.settings import bounds


@pytest.mark.parametrize(
    "line", [f"a({' ' * 19_000}b", f"a{' ' * 19_000}b", f"a(b){' ' * 19_000}c", "( ): x", "a (b):"]
)
def test_a_line_that_is_none_is_refused_at_once(line: str) -> None:
    """A line of blanks once took minutes, in which nobody was answered."""
    with pytest.raises(UsageError):
        bounds.read(line)
