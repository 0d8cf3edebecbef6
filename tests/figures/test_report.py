import base64
import re
from html.parser import HTMLParser

import pytest

from dpmed.figures.report import Picture, Report, Table, write_report
from dpmed.figures.style import new_figure, save_figure


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in {"src", "href", "action"}]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def page(tmp_path):
    figure, _ = new_figure(width=2.0, height=2.0)
    (picture,) = save_figure(figure, tmp_path, "figure", formats=("png",))
    report = Report(
        title='Audit of <script>alert("x")</script>',
        warning="keep & hide",
        conclusion="Nothing was <i>recovered</i>",
        summary=Table(title="In short", columns=("privacy",), rows=[("ε = 8",)]),
        findings=["0 of 8 <b>were</b> recovered"],
        sections=[
            Picture(title="Figure", path=picture, caption='a "figure"'),
            Table(title="Levels", columns=("level", "σ"), rows=[("eps=1e+06", "<0.1")], note="note"),
        ],
        facts={"config": "</td><img src=http://example.org/x>"},
        explanation=["what it means"],
        appendix=[Table(title="All of them", columns=("name",), rows=[("last",)])],
    )
    write_report(tmp_path / "report.html", report)
    return (tmp_path / "report.html").read_text(), picture.read_bytes()


def test_the_page_fetches_nothing_and_forbids_it(page):
    parsed = Page(page[0])
    assert parsed.sources and all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert "default-src 'none'" in page[0] and "@import" not in page[0] and "url(" not in page[0]
    assert not {"script", "link", "iframe", "b"} & set(parsed.tags)


def test_what_is_long_comes_last(page):
    headings = re.findall("<h2>(.*?)</h2>", page[0])
    assert headings == ["In short", "How to read this", "Figure", "Levels", "In detail", "Settings", "All of them"]


def test_the_figure_is_inside(page):
    (content,) = re.findall(r"base64,([^\"]+)", page[0])
    assert base64.b64decode(content) == page[1]


def test_text_from_files_is_shown_and_not_obeyed(page):
    words = "".join(Page(page[0]).words)
    for text in (
        '<script>alert("x")</script>',
        "keep & hide",
        "Nothing was <i>recovered</i>",
        "ε = 8",
        "0 of 8 <b>were</b> recovered",
        "<0.1",
        "what it means",
    ):
        assert text in words
    assert Page(page[0]).tags.count("img") == 1
