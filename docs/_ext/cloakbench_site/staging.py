"""Turns the Markdown of the repository into the source of the site.

What lives here: copying pages, mending links, the table of contents. What must not: words about the benchmark; pages
made from the code are in `method_pages`, `command_pages` and `python_pages`.

The pages of ``docs/`` and ``results/`` are read on the code-hosting site as they are. The site's source is a copy
outside the tree, so that building leaves nothing behind and generated pages never lie beside written ones.
"""

import posixpath
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

_LINK_OR_CODE = re.compile(
    r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$"
    r"|^ {4}[^\n]*$"
    r"|(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^)\s]+)\)"
    r"|`[^`\n]+`",
    re.MULTILINE | re.DOTALL,
)
_LISTED = re.compile(r"^- \[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]+\.md)\)", re.MULTILINE)
_HEADING = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)
_LEFT_OUT = {"_ext", "_static", "conf.py"}


def staged_name(path: Path, root: Path) -> str | None:
    """Return where a file of the repository lies in the site's source; None where it has no place there."""
    inside = path.relative_to(root) if path.is_relative_to(root) else None
    if inside is None or not path.is_file():
        return None
    folder, *rest = inside.parts
    if folder == "docs" and rest[0] not in _LEFT_OUT:
        return "/".join(rest)
    if folder == "results":
        return inside.as_posix()
    return None


def fix_links(text: str, page: Path, root: Path) -> str:
    """Return a page's text with every link as the site needs it.

    A link to what the site has leads there. One to a file of the repository that the site has not (source code)
    becomes the file's name.

    Args:
        text: the page, Markdown.
        page: where the page is in the repository.
        root: the repository.

    Raises:
        ValueError: a link leads to nothing.
    """
    own = staged_name(page, root)
    if own is None:
        raise ValueError(f"{page} is no page of the site.")

    def fixed(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or target.startswith(("http://", "https://", "mailto:", "#")):
            return match[0]
        name, mark, anchor = target.partition("#")
        path = Path(posixpath.normpath((page.parent / name).as_posix()))
        if not path.exists():
            raise ValueError(f"{page.relative_to(root)} links to {target}, which is not there.")
        staged = staged_name(path, root)
        if staged is None:
            own_name = f"`{path.relative_to(root).as_posix()}`"
            return own_name if match["text"].startswith("`") else f"{match['text']} ({own_name})"
        there = posixpath.relpath(staged, posixpath.dirname(own) or ".")
        return f"{match['image']}[{match['text']}]({there}{mark}{anchor})"

    return _LINK_OR_CODE.sub(fixed, text)


def tables_of_contents(index: str, pages: Iterable[str], generated: Mapping[str, Iterable[str]]) -> str:
    """Return hidden tables of contents for the front page, one a section.

    Args:
        index: the front page: sections that list pages as ``- [Title](page.md)…``.
        pages: every written page of the site, by its staged name.
        generated: section → pages made from the code that belong to it.

    Returns:
        Markdown to append. A page that no section lists stands under "More", so that none is lost.
    """
    sections: dict[str, list[str]] = {}
    pieces = _HEADING.split(index)
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        listed = [match["target"] for match in _LISTED.finditer(body)]
        if listed:
            sections[title] = listed
    for title, names in generated.items():
        sections.setdefault(title, []).extend(names)
    known = {name for names in sections.values() for name in names}
    left = sorted(set(pages) - known - {"index.md"})
    if left:
        sections["More"] = left
    return "".join(_toctree(title, names) for title, names in sections.items())


def with_title(text: str, name: str) -> str:
    """Return a page that has a title; a table without one, which others link to, gets its file's name.

    Args:
        text: the page, Markdown.
        name: its staged name.
    """
    if text.startswith("# "):
        return text
    title = Path(name).stem.replace("-", " ")
    return f"---\norphan: true\n---\n\n# {title.capitalize()}\n\n{text}"


def _toctree(title: str, names: Iterable[str]) -> str:
    lines = "\n".join(name.removesuffix(".md") for name in dict.fromkeys(names))
    return f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n:maxdepth: 1\n\n{lines}\n```\n"


def stage(root: Path, out: Path, made: Mapping[str, str], generated: Mapping[str, Iterable[str]]) -> None:
    """Write the site's source; what is there already and unchanged keeps its time, what is no page any more goes.

    Args:
        root: the repository.
        out: the folder to write.
        made: staged name → Markdown of pages made from the code.
        generated: section of the front page → those of `made` it lists.

    Raises:
        ValueError: a page links to nothing, or a made page has the name of a written one.
    """
    sources = {
        name: path
        for folder in ("docs", "results")
        for path in sorted((root / folder).rglob("*"))
        if (name := staged_name(path, root)) is not None and "__pycache__" not in path.parts
    }
    if twice := sources.keys() & made.keys():
        raise ValueError(f"{min(twice)} is written by hand and made from the code; rename one.")
    pages = [name for name in sources if name.endswith(".md")]
    titled = [name for name in pages if sources[name].read_text(encoding="utf-8").startswith("# ")]
    out.mkdir(parents=True, exist_ok=True)
    for name, path in sources.items():
        if name not in pages:
            _copy(path, out / name)
            continue
        text = with_title(fix_links(path.read_text(encoding="utf-8"), path, root), name)
        if name == "index.md":
            text += tables_of_contents(text, titled, generated)
        _write(out / name, text)
    for name, text in made.items():
        _write(out / name, text)
    for path in sorted(out.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(out).as_posix() not in sources.keys() | made.keys():
            path.unlink()


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(source: Path, path: Path) -> None:
    if path.is_file() and path.read_bytes() == source.read_bytes():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
