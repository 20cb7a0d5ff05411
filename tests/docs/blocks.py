"""The code blocks of a Markdown page, and what their marks say about running them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

CLUSTER = "needs a cluster"
RUN = frozenset({"python", "sh"})
SHOWN = frozenset({"text", "json", "toml", "yaml"})

_FENCE = re.compile(r"^```(?P<language>[a-z]*)(?P<attributes>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (?P<text>[^>]*?) -->\n$")
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block. ``line`` is that of its first line of code, ``mark`` the text of the comment right above it."""

    page: str
    line: int
    language: str
    title: str
    mark: str
    code: str

    @property
    def runs(self) -> bool:
        """Return True if it is code that is run everywhere."""
        return self.language in RUN and not self.mark.startswith(("not run: ", CLUSTER))

    @property
    def on_cluster(self) -> bool:
        """Return True if it is code that is run where there is a cluster, by ``tests/cloud``."""
        return self.language in RUN and self.mark.startswith(CLUSTER)

    @property
    def exits(self) -> int:
        """The exit status that is right."""
        return int(self.mark.removeprefix("exits ")) if self.mark.startswith("exits ") else 0

    @property
    def background(self) -> bool:
        """Return True if it runs on until the page's end."""
        return self.mark in {"background", f"{CLUSTER}, background"}

    @property
    def known(self) -> bool:
        """Return True if its language and its mark are ones that we know."""
        mark = re.fullmatch(rf"|(?:{CLUSTER}, )?background|{CLUSTER}|exits [0-9]+|not run: .{{10,}}", self.mark)
        return self.language in RUN | SHOWN and mark is not None


def blocks(page: str, text: str) -> Iterator[Block]:
    """All blocks of a page, in order."""
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text, 0, fence.start())
        title = _TITLE.search(fence["attributes"])
        yield Block(
            page=page,
            line=text.count("\n", 0, fence.start("code")) + 1,
            language=fence["language"],
            title=title["title"] if title else "",
            mark=mark["text"] if mark else "",
            code=fence["code"],
        )
