"""The demo opens a browser where somebody sits before one."""

import sys
import webbrowser

import pytest

from bemi.cli import demo

LINK = "http://127.0.0.1:8420/sign-in?link=x-Y_z"


@pytest.mark.parametrize(
    ("line", "screen", "terminal", "opened"),
    [
        (f"  {LINK}", ":0", True, [LINK]),
        (f"  {LINK}", "", True, []),
        (f"  {LINK}", ":0", False, []),
        ("listening on http://127.0.0.1:8420", ":0", True, []),
    ],
)
def test_the_link_is_opened_on_a_desktop(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    screen: str,
    terminal: bool,
    opened: list[str],
) -> None:
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", found.append)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    demo._show(line)
    assert found == opened
    assert capsys.readouterr().out == f"{line}\n"
