"""Valid files made hostile: bytes, words, cells and trees are changed by a seeded generator."""

import csv
import io
import json
import random
import tomllib
from collections.abc import Callable
from typing import Any, Literal, get_args

import tomli_w

Mutation = Callable[[random.Random, bytes], bytes]
_Order = Literal["little", "big"]
_ORDERS: tuple[_Order, ...] = get_args(_Order)
_LARGEST = 1e300
_NUMBERS = (
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63,
    2**64,
)
WORDS = (
    "", " ", "0", "-1", "1", "0.5", "nan", "-inf", "1e400", "9" * 400, "1e-320", "0x10", "१२", "true", "null", "None",
    "../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "\ud7ff", "\ufeff", "é" * 300, "x" * 5000, '"', "'", ",", "\n",
    "\r", "{", "[[", "=SUM(1)", "%s%n", "${HOME}", "~", ".", "..", "/", "//", "con", "\u202e", "<b>", "(a+)+$", "[",
)  # fmt: skip


def _field(number: int, size: int, order: _Order = "little") -> bytes:
    """A number as a field of a file holds it: its last bytes, negative ones in two's complement."""
    return (number & 2 ** (8 * size) - 1).to_bytes(size, order)


def bytes_(generator: random.Random, content: bytes) -> bytes:
    """Some bytes flipped, set, cut out, doubled or put in; the end cut off."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 16))):
        size = len(changed)
        place = generator.randrange(size) if size else 0
        # Headers stand in front: half of all changes are made there.
        if size > 512 and generator.random() < 0.5:
            place = generator.randrange(512)
        length = generator.choice((1, 2, 4, 8, 64))
        match generator.randrange(7):
            case 0 if size:
                changed[place] ^= 1 << generator.randrange(8)
            case 1 if size:
                changed[place] = generator.choice((0, 1, 127, 128, 255, generator.randrange(256)))
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length] * generator.choice((1, 2, 50))
            case 4:
                number, order = generator.choice(_NUMBERS), generator.choice(_ORDERS)
                held = _field(number, min(length, 8), order)
                changed[place : place + len(held)] = held
            case 5:
                changed[place:place] = generator.randbytes(length)
            case 6 if generator.random() < 0.3:
                del changed[place:]
    return bytes(changed)


def words(generator: random.Random, content: bytes) -> bytes:
    """A line or a part of one replaced, doubled, or taken out."""
    lines = content.decode("utf-8", "surrogateescape").splitlines(keepends=True) or [""]
    for _ in range(generator.choice((1, 1, 2, 5))):
        place = generator.randrange(len(lines))
        match generator.randrange(4):
            case 0:
                lines.insert(place, lines[place])
            case 1 if len(lines) > 1:
                del lines[place]
            case 2:
                other = generator.randrange(len(lines))
                lines[place], lines[other] = lines[other], lines[place]
            case _:
                line = lines[place]
                start = generator.randrange(len(line) + 1)
                end = min(len(line), start + generator.choice((0, 1, 3, 20)))
                lines[place] = line[:start] + generator.choice(WORDS) + line[end:]
    return "".join(lines).encode("utf-8", "surrogatepass" if generator.random() < 0.1 else "surrogateescape")


def table(generator: random.Random, content: bytes) -> bytes:
    """Cells, rows and columns of a CSV file."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    for _ in range(generator.choice((1, 1, 1, 2, 6))):
        row = generator.choice(rows[:2] if generator.random() < 0.3 else rows)
        column = generator.randrange(len(row)) if row else 0
        match generator.randrange(6):
            case 0:
                rows.append(list(row))
            case 1 if len(rows) > 1:
                rows.remove(row)
            case 2:
                for line in rows:
                    line.insert(column, line[column] if column < len(line) else "")
            case 3:
                for line in rows:
                    del line[column : column + 1]
            case 4 if row:
                row[column] = generator.choice(generator.choice(rows) or [""])
            case _ if row:
                row[column] = generator.choice(WORDS)
    text = io.StringIO()
    csv.writer(text, lineterminator=generator.choice(("\n", "\n", "\r\n", "\r"))).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _value(generator: random.Random) -> Any:
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: generator.choice(_NUMBERS),
        lambda: -generator.choice(_NUMBERS),
        lambda: generator.choice((0.5, -0.5, 1e308, 1e-320, 10**400)),
        lambda: generator.choice(WORDS),
        lambda: generator.choice((True, False, None)),
        list,
        dict,
        lambda: [generator.choice(WORDS)] * generator.choice((1, 3, 2000)),
        lambda: {generator.choice(WORDS): generator.choice(_NUMBERS)},
        lambda: float(generator.choice(("nan", "inf", "-inf"))),
    )
    return generator.choice(kinds)()


def _places(node: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        found += [(node, key), *_places(node[key])]
    return found


def _change_tree(generator: random.Random, tree: Any) -> Any:
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        places = _places(tree)
        if not places or generator.random() < 0.02:
            return _value(generator)
        node, key = generator.choice(places)
        match generator.randrange(6):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[generator.choice(WORDS)] = _value(generator)
            case 2 if isinstance(node, list):
                node.append(node[key])
            case 3:
                other, name = generator.choice(places)
                if name in other if isinstance(other, dict) else name < len(other):
                    # A copy: a tree that holds itself cannot be written.
                    node[key] = json.loads(json.dumps(other[name]))
            # Not what is beyond every float: a fraction cannot be added to it.
            case 4 if type(node[key]) in (int, float) and abs(node[key]) < _LARGEST:
                node[key] = node[key] + generator.choice((-1, 1, 0.5, -1e9, 1e9))
            case _:
                node[key] = _value(generator)
    return tree


def json_(generator: random.Random, content: bytes) -> bytes:
    """Values and keys of a JSON file; now and then nested without end."""
    if generator.random() < 0.01:
        return b"[" * 200_000
    return json.dumps(_change_tree(generator, json.loads(content)), ensure_ascii=generator.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def checkpoint(generator: random.Random, content: bytes) -> bytes:
    """The line of JSON in front of a checkpoint's arrays."""
    start = content.index(b"{")
    end = content.index(b"\n", start)
    return content[:start] + json_(generator, content[start:end]) + content[end:]


def safetensors(generator: random.Random, content: bytes) -> bytes:
    """The JSON in front of a safetensors file's arrays, and its length."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json_(generator, content[8:end])
    return len(header).to_bytes(8, "little") + header + content[end:]


def toml(generator: random.Random, content: bytes) -> bytes:
    """Values and keys of a TOML file."""
    tree = _change_tree(generator, tomllib.loads(content.decode()))
    try:
        return tomli_w.dumps(_without_null(tree)).encode("utf-8", "surrogatepass")
    except (TypeError, AttributeError, ValueError):
        return words(generator, content)


def _without_null(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_null(value) for key, value in node.items() if value is not None}
    return [_without_null(value) for value in node if value is not None] if isinstance(node, list) else node


def dicom(generator: random.Random, content: bytes) -> bytes:
    """Elements of a DICOM file given other values, of other lengths, taken out or doubled."""
    import pydicom
    from pydicom.dataelem import RawDataElement

    dataset = pydicom.dcmread(io.BytesIO(content))
    buffer = io.BytesIO()
    tags = list(dataset.keys())
    for _ in range(generator.choice((1, 1, 2, 4))):
        tag = generator.choice(tags)
        if tag not in dataset:
            continue
        old = dataset.get_item(tag)
        raw = old.value if isinstance(old, RawDataElement) and isinstance(old.value, bytes) else b""
        text = generator.choice(WORDS).encode("utf-8", "surrogatepass")[:1024]
        match generator.randrange(4):
            case 0:
                del dataset[tag]
                continue
            case 1:
                raw = _field(generator.choice(_NUMBERS), max(2, min(8, len(raw))))
            case 2:
                raw = text + b" " * (len(text) % 2)
            case _:
                raw = bytes_(generator, raw)[:65536]
        vr = generator.choice((old.VR, old.VR, "UN", "US", "OW", "SQ", "DS", "LO"))
        dataset._dict[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    try:
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
    except Exception:
        return bytes_(generator, content)
    return buffer.getvalue()


def nifti(generator: random.Random, content: bytes) -> bytes:
    """Numbers in a NIfTI header, at their own places."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4))):
        place = generator.choice((0, *range(40, 56, 2), 70, 72, *range(76, 108, 4), 108, 112, 116, 120, 252, 254,
                                  *range(256, 328, 4), 344))  # fmt: skip
        size = 4 if place in (0, 108, 112, 116) or place >= 256 or 76 <= place < 120 else 2
        special = (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\x01\x00\x00\x00")
        number = _field(generator.choice(_NUMBERS), size)
        changed[place : place + size] = generator.choice(special)[:size] if generator.random() < 0.3 else number
    return bytes(changed)
