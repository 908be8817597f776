"""Writes what docs/protocol.md shows of the code: tables, limits and vectors.

Run `python -m tests.wire.document` after a change of the protocol; a test fails until
then. Between `<!-- NAME -->` and `<!-- end -->` in the document stands what is made
here, the rest is written by hand.
"""

import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from p2p.wire import limits
from p2p.wire.exchange import FETCH, WATCH, Phase, Signal, Table
from p2p.wire.fields import Field
from p2p.wire.layout import LAYOUTS
from p2p.wire.record import CLAIM
from p2p.wire.session import SESSION, Side, Speech
from tests.wire import vectors

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "protocol.md"
VECTORS = DOCS / "vectors" / "wire.json"
_BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def states(
    states: Iterable[Enum], signals: type[Enum], rows: Mapping[Any, Mapping[Any, Enum]]
) -> str:
    """Return a state table: a row a state, a column a signal, blank if refused."""
    used = [s for s in signals if any(s in rows[state] for state in states)]
    return table(
        ["state", *[str(signal.value) for signal in used]],
        [
            [
                f"**{state.value}**",
                *[
                    str(row[signal].value) if signal in row else "–"  # noqa: RUF001
                    for signal in used
                ],
            ]
            for state in states
            for row in [rows[state]]
        ],
    )


def _exchange(rows: Table) -> str:
    return states([phase for phase in Phase if phase in rows], Signal, rows)


def _messages() -> str:
    return table(
        ["type", "message", "fields"],
        [
            [
                f"`0x{item.code:02x}`",
                f"`{item.name}`",
                "<br>".join(f"`{n}` {f.label}" for n, f in item.fields.items()),
            ]
            for item in LAYOUTS
        ],
    )


def _fields(fields: Mapping[str, Field]) -> str:
    return table(["field", "is"], [[f"`{n}`", f.label] for n, f in fields.items()])


def _limits() -> str:
    names = [name for name in vars(limits) if re.match("MAX_|[A-Z_]+_BYTES$", name)]
    return table(
        ["limit", "value"],
        [[f"`{name}`", f"{getattr(limits, name):,}"] for name in names],
    )


def _code(lines: Iterable[str]) -> str:
    return "```\n" + "".join(f"{line}\n" for line in lines) + "```\n"


def _fold(text: str) -> list[str]:
    return [f"    {text[at : at + 96]}" for at in range(0, len(text), 96)]


def _bodies(made: dict[str, Any]) -> str:
    lines = []
    for vector in made["messages"]:
        lines += [f"{vector['message']} {json.dumps(vector['fields'])}"]
        lines += _fold(vector["body"])
    return _code(lines)


def _conversation(made: dict[str, Any]) -> str:
    lines = []
    for step in made["conversation"]:
        lines += [f"{step['from']}: {step['event']}", *_fold(step["bytes"])]
    return _code(lines)


def _signed(made: dict[str, Any]) -> str:
    lines = []
    for key, value in made.items():
        lines += [key, *_fold(value if isinstance(value, str) else json.dumps(value))]
    return _code(lines)


def _rows(made: dict[str, Any], key: str) -> str:
    return table(
        made[key][0],
        [
            [f"`{v}`" if k in {"bytes", "body"} else str(v) for k, v in row.items()]
            for row in made[key]
        ],
    )


def blocks(made: dict[str, Any]) -> dict[str, str]:
    """Return the parts of the document that are made, by their names in it."""
    return {
        "limits": _limits(),
        "messages": _messages(),
        "session": states(list(Side), Speech, SESSION),
        "fetch": _exchange(FETCH),
        "watch": _exchange(WATCH),
        "bodies": _bodies(made),
        "conversation": _conversation(made),
        "accepted": _rows(made, "accepted"),
        "refused": _rows(made, "refused"),
        "varints": _rows(made, "varints"),
        "bitmaps": _rows(made, "bitmaps"),
        "hashes": _signed(made["hashes"]),
        "claim": _fields(CLAIM),
        "record": _signed(made["record"]),
    }


def render(document: str, made: dict[str, Any]) -> str:
    """Return the document with everything between its marks made anew."""
    parts = blocks(made)
    return _BLOCK.sub(lambda found: found[1] + parts[found[2]] + found[3], document)


def as_json(made: dict[str, Any]) -> str:
    """Return the vectors as the file holds them."""
    return json.dumps(made, indent=1) + "\n"


def main() -> None:
    """Write both files."""
    made = vectors.make()
    VECTORS.write_text(as_json(made))
    DOCUMENT.write_text(render(DOCUMENT.read_text(), made))


if __name__ == "__main__":
    main()
