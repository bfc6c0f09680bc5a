"""Each pair of colours that pages write with is AA, light and dark.
https://www.w3.org/TR/WCAG22/#contrast-minimum"""

import re
from importlib import resources

import pytest

CSS = resources.files("bemi.ui").joinpath("static", "bemi.css").read_text(encoding="utf-8")
TOKENS = {
    name: (light, dark)
    for name, light, dark in re.findall(r"--([\w-]+): light-dark\(#(\w{6}), #(\w{6})\);", CSS)
}
OPERATIONS = ("create", "update", "delete", "baseline", "gap")
TEXTS = [
    *((ink, ground) for ink in ("ink", "quiet", "link") for ground in ("ground", "raised")),
    *((name, f"{name}-tint") for name in (*OPERATIONS, "moment")),
    ("gap", "ground"),
    ("gap", "raised"),
]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize(("ink", "ground"), TEXTS)
def test_texts_can_be_read(ink: str, ground: str) -> None:
    for one, other in zip(TOKENS[ink], TOKENS[ground], strict=True):
        assert contrast(one, other) >= 4.5


def test_edges_of_fields_can_be_seen() -> None:
    for one, other in zip(TOKENS["edge"], TOKENS["ground"], strict=True):
        assert contrast(one, other) >= 3


def test_no_colour_stands_outside_of_the_tokens() -> None:
    behind = CSS.partition("@layer base {")[2]
    assert behind
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(", behind)


def test_embeds_have_the_same_colours_unless_the_application_says_others() -> None:
    script = resources.files("bemi.embed").joinpath("static", "bemi-embed.js")
    own = re.findall(
        r"--([\w-]+): var\(--bemi-([\w-]+), light-dark\(#(\w{6}), #(\w{6})\)\);",
        script.read_text(encoding="utf-8"),
    )
    assert len(own) > 10
    for name, given, light, dark in own:
        assert name == given
        assert TOKENS[name] == (light, dark)
