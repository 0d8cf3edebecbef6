"""A self-contained page: figures, tables and sentences, with nothing fetched from elsewhere.

All text is escaped, since names may come from files; a content security policy forbids the page to load or run
anything.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from dpmed.files import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.warning { border-left: 4px solid #D55E00; background: #fdf3ec; padding: .6rem 1rem; }
.conclusion { border-left: 4px solid #0072B2; background: #eef6fb; padding: .6rem 1rem; font-size: 1.1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; } td:first-child { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #888; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; overflow-x: auto; }
figcaption { color: #444; font-size: .9rem; }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a heading.

    Attributes:
        title: heading above it.
        columns: names of the columns.
        rows: cells as text.
        note: a sentence below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with a heading.

    Attributes:
        title: heading above it.
        path: a PNG file, which is embedded in the page.
        caption: what it shows; also its text alternative.
    """

    title: str
    path: Path
    caption: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of the page, in order.

    Attributes:
        title: title of the page.
        warning: how the page must be handled.
        conclusion: the main conclusion.
        summary: the main table.
        explanation: sentences on how to read it.
        findings: sentences with individual results.
        sections: figures and tables.
        facts: settings by name.
        appendix: long tables, after everything else.
    """

    title: str
    warning: str
    conclusion: str
    summary: Table | None = None
    explanation: Sequence[str] = ()
    findings: Sequence[str] = ()
    sections: Sequence[Picture | Table]
    facts: Mapping[str, str] = field(default_factory=dict)
    appendix: Sequence[Table] = ()


def write_report(path: Path, report: Report) -> None:
    """Write the page, whole or not at all.

    Raises:
        OSError: a picture cannot be read.
    """
    summary = "" if report.summary is None else _table(report.summary)
    findings = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.findings)
    findings = f"<h2>In detail</h2>\n<ul>{findings}</ul>\n" if findings else ""
    sections = "".join(map(_section, report.sections))
    facts = _table(Table(title="Settings", columns=("", ""), rows=list(report.facts.items()))) if report.facts else ""
    appendix = "".join(map(_table, report.appendix))
    explanation = "".join(f"<p>{escape(sentence)}</p>" for sentence in report.explanation)
    explanation = f"<h2>How to read this</h2>\n{explanation}\n" if explanation else ""
    write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(report.title)}</h1>
<p class="warning">{escape(report.warning)}</p>
<p class="conclusion">{escape(report.conclusion)}</p>
{summary}{explanation}{sections}{findings}{facts}{appendix}</body>
</html>
""",
    )


def _section(section: Picture | Table) -> str:
    return _table(section) if isinstance(section, Table) else _picture(section)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    head = f"<thead><tr>{head}</tr></thead>" if any(table.columns) else ""
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in table.rows)
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    body = f"<table>{head}<tbody>\n{rows}</tbody></table>"
    return f'<h2>{escape(table.title)}</h2>\n<div class="wide">{body}</div>\n{note}'


def _picture(picture: Picture) -> str:
    content = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    alt, title = escape(picture.caption, quote=True), escape(picture.title)
    image = f'<img alt="{alt}" src="data:image/png;base64,{content}">'
    return f"<h2>{title}</h2>\n<figure>{image}<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
