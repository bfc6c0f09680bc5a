"""Ruby's context is Python's: what it makes of statements and contexts is the same."""

import json
import random
from pathlib import Path
from typing import Any

from bemi.context import wire
from bemi.context.statements import classify
from tests.support import ruby

DIFFERENTIAL = Path(__file__).parent / "ruby" / "differential.rb"
EACH = 2000

# Whole parts of statements, and what tears them apart.
PARTS = """
insert into t values (1)|update t set a = 1|delete from t|merge into t using s on true|select|into
with x as (|)|(|select 1|from t|for update|for no key update|copy t from stdin|copy (|to stdout
truncate t|create table t (a int)|create index concurrently i on t (a)|create database d
drop view v|alter system set a = 1|comment on table t is|do|call p()|execute e(1)|explain|analyze
vacuum|set role|set local role a|reset role|discard all|set_config('role', 'a', true)|add_one()
app.add_one ()|"add_one" ()|begin|start transaction|commit|end|rollback|abort
prepare transaction 'x'|commit prepared 'x'|rollback to savepoint a|rollback work to "A b"
savepoint a|savepoint "a""b"|release savepoint a|release a|work|transaction|values (1)|table t
declare c cursor for|fetch c|show all|lock table t|refresh materialized view v
grant select on t to u|;|;|;| |\n|\t|-- a ; b\n|/* ; */|/*|/* a /* b */ c */|*/|'|''|'a;b'
E'a\\'b'|e'\\|\\|"|""|"a;b"|$$|$a$|$$ ; $$|$a$ ' $a$|$1|$|a$b|é|木
select * from t where a = $1 and b = 'insert into t'|insert|update|delete|u&'a'|1e5|.|,|::text
\x1f
""".strip("\n")
TEXTS = [
    *(
        "a",
        "é",
        "木",
        "😀",
        "\0",
        '"',
        "\\",
        "\n",
        "\x7f",
        "\x1b",
        "/",
        "\u2028",
        "…",
        " ",
        "_bemi",
    ),
    *("password", "token", "API-Key", "secret2", "tokens", "cvc\u0663", "card_number", "Ünïcode"),
    *("x" * 50, "é" * 300),
]


def test_statements_are_classified_alike() -> None:
    chance = random.Random(7)
    parts = [part for line in PARTS.split("\n") for part in line.split("|")]
    parts = [part.replace("\\n", "\n").replace("\\t", "\t") for part in parts]
    statements = [
        chance.choice(("", " ")).join(chance.choices(parts, k=chance.randint(1, 9)))
        for _ in range(EACH)
    ]
    answers = _ruby([{"statement": text} for text in statements])
    wrong = []
    for text, answer in zip(statements, answers, strict=True):
        here = classify(text, frozenset(["add_one"]))
        controls = [list(control) for control in here.controls]
        expected = [here.writes, here.wrappable, here.several, controls, here.roles]
        if json.loads(answer) != expected:
            wrong.append((text, expected, answer))
    assert not wrong, (len(wrong), wrong[0])


def test_contexts_are_encoded_alike() -> None:
    chance = random.Random(7)
    asked: list[dict[str, object]] = [
        {
            "context": {_text(chance): _value(chance, 2) for _ in range(chance.randint(0, 8))},
            "limit": chance.choice((1000, 2000, 4096, wire.LIMIT)),
            "redact": chance.random() < 0.9,
        }
        for _ in range(EACH)
    ]
    answers = _ruby(asked)
    wrong = []
    for each, answer in zip(asked, answers, strict=True):
        context: Any = each["context"]
        limit: Any = each["limit"]
        expected = wire.encode(context, limit=limit, redact=bool(each["redact"]))
        if answer != expected:
            wrong.append((each, expected, answer))
    assert not wrong, (len(wrong), wrong[0])
    assert sum("truncated" in answer for answer in answers) > EACH / 20, "few were cut"


def _text(chance: random.Random) -> str:
    return "".join(chance.choices(TEXTS, k=chance.choice((0, 1, 1, 2, 3, 20))))


def _value(chance: random.Random, depth: int) -> object:
    kind = chance.randrange(12 if depth else 8)
    match kind:
        case 0:
            return chance.choice((None, True, False))
        case 1:
            return chance.randint(-(2 ** chance.randint(1, 1000)), 2 ** chance.randint(1, 1000))
        case 2:
            return chance.uniform(-1, 1) * 10.0 ** chance.randint(-30, 30)
        case 3:
            return chance.choice((0.0, -0.0, 1e16, 1e15, 1e22, 1e23, 0.0001, 0.00001, 5e-324, 1.5))
        case 8 | 9:
            return [_value(chance, depth - 1) for _ in range(chance.randint(0, 6))]
        case 10 | 11:
            return {_text(chance): _value(chance, depth - 1) for _ in range(chance.randint(0, 6))}
    return _text(chance)


def _ruby(asked: list[dict[str, object]]) -> list[str]:
    lines = "".join(json.dumps(each) + "\n" for each in asked)
    return ruby.run([ruby.ruby(), str(DIFFERENTIAL)], stdin=lines).splitlines()
