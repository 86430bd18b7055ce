"""What makes the site of the repository: pages that lie outside docs/, and links that lead there.

A hook of MkDocs (`hooks` in mkdocs.yml). Every document is written to be read where it lies, on GitHub or in an editor;
what is different on the site is changed here, and nowhere else.
"""

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]
OUTSIDE: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Documents outside docs/, by their path in the repository: the page that each becomes."""

LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that lie outside docs/."""
    for path, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links between documents, as they are in the repository, into links between pages."""
    inside = {shown: path for path, shown in OUTSIDE.items()}
    here = posixpath.dirname(inside.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def on_the_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, link[1]))
        return OUTSIDE.get(path, posixpath.relpath(path, "docs"))

    return LINK.sub(on_the_site, markdown)
