"""HTML for reports: elements that escape what they hold, tables, and the page with its style and script.

Everything is in the page; its content security policy forbids loading anything else. The colours follow
the reader's light or dark mode. `--s0` … `--s6` are the colours of the series of every chart, told apart
by readers with any kind of colour vision; `s0` is grey, for the reference.
"""

from collections.abc import Sequence
from html import escape

_VOID = ("meta", "img")  # elements without a closing tag


class Html(str):
    """Text that is HTML already; any other text is escaped when it becomes part of an element."""


def tag(element: str, /, *children: str | None, **attributes: str | int | float | bool | None) -> Html:
    """Builds one element.

    Args:
        element: its name, for example `td`.
        *children: its content in order; `Html` as it is, other text escaped. None is left out.
        **attributes: its attributes, escaped. `_` stands for `-`, one at the end is dropped (`class_`). True
            gives an attribute without a value; False and None leave it out.

    Returns:
        The element.
    """
    opening = [element]
    for key, value in attributes.items():
        if value is not None and value is not False:
            name = key.rstrip("_").replace("_", "-")
            opening.append(name if value is True else f'{name}="{escape(str(value))}"')
    if element in _VOID:
        return Html(f"<{' '.join(opening)}>")
    return Html(f"<{' '.join(opening)}>{join(children)}</{element}>")


def join(children: Sequence[str | None]) -> Html:
    """Puts pieces one after another; text that is not `Html` is escaped, None is left out."""
    return Html("".join(child if isinstance(child, Html) else escape(child)
                        for child in children if child is not None))


def section(anchor: str, title: str, *children: str | None) -> Html:
    """A part of the page that the navigation can point to."""
    return tag("section", tag("h2", title), *children, id=anchor)


def table(head: Sequence[Sequence[tuple[str, int]]], rows: Sequence[Sequence[str | None]], caption: str,
          *, sortable: bool = False) -> Html:
    """A table that scrolls sideways where the screen is narrow.

    Args:
        head: header rows, each a list of (text, columns it spans); an empty text is an empty cell.
        rows: cells. The first of each row is its header; the others are numbers, None is shown as a dash.
        caption: what the table shows; above it.
        sortable: let the reader sort it by a click on a column (the last header row must name every column).

    Returns:
        The table.
    """
    header = [tag("tr", *(tag("th" if text else "td", text, colspan=span if span > 1 else None,
                              scope=("colgroup" if span > 1 else "col") if text else None)
                          for text, span in cells)) for cells in head]
    body = [tag("tr", tag("th", first, scope="row"),
                *(tag("td", "–" if cell is None else cell) for cell in cells)) for first, *cells in rows]
    content = tag("table", tag("thead", *header), tag("tbody", *body), data_sortable=sortable)
    # The caption is outside of the table, so that it does not scroll away with it.
    return tag("figure", tag("figcaption", caption),
               tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption))


def facts(pairs: Sequence[tuple[str, str]]) -> Html:
    """Names and their values, as a description list."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs))


def page(title: str, anchors: Sequence[tuple[str, str]], *content: str | None) -> Html:
    """The whole document.

    Args:
        title: of the window.
        anchors: (id, text) of the navigation.
        *content: the page, from its heading on.

    Returns:
        The document.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    head = tag("head", tag("meta", charset="utf-8"),
               tag("meta", http_equiv="Content-Security-Policy", content=policy),
               tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
               tag("meta", name="color-scheme", content="light dark"), tag("title", title),
               tag("style", Html(_STYLE)))
    links = [tag("a", text, href=f"#{anchor}") for anchor, text in anchors]
    body = tag("body", tag("main", content[0], tag("nav", *links, aria_label="Sections"), *content[1:]),
               tag("script", Html(_SCRIPT)))
    return Html("<!DOCTYPE html>\n" + tag("html", head, Html("\n"), body, lang="en") + "\n")


_STYLE = """
:root { --page: #f6f7f9; --card: #ffffff; --text: #1b1f24; --soft: #57606a; --line: #d4d9df; --link: #0a58b5;
  --s0: #6e7781; --s1: #0072b2; --s2: #c2410c; --s3: #7b3294; --s4: #b07d00; --s5: #00806a; --s6: #b3246b; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1318; --card: #181d24; --text: #e6e9ed;
  --soft: #a3adb8; --line: #343c46; --link: #7ab7ff; --s0: #9aa4af; --s1: #56b4e9; --s2: #ff8a4c;
  --s3: #c99bea; --s4: #f0c541; --s5: #35c9a8; --s6: #ff85bb; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 0 0 12px; }
h3 { font-size: 1rem; margin: 0 0 4px; }
p { margin: 0 0 12px; max-width: 85ch; overflow-wrap: anywhere; }
ul { margin: 0 0 12px; padding-left: 20px; }
a { color: var(--link); }
code { font: 0.85em ui-monospace, Consolas, monospace; color: var(--soft); }
.soft { color: var(--soft); font-size: 0.9rem; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 12px 0 20px; }
section, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px;
  margin-bottom: 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-bottom: 20px; }
.tiles .card { margin: 0; padding: 12px 16px; }
.tiles b { display: block; font-size: 1.55rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 28px; }
figure { margin: 0 0 16px; min-width: 0; }
.plot { overflow: hidden; padding: 8px 16px 44px 52px; }
.plot.bars { padding: 26px 60px 44px 14px; }
.plot.signed { padding: 26px 14px 44px; }
.plot svg { display: block; width: 100%; overflow: visible; }
.plot text { font-size: 12px; fill: var(--text); font-variant-numeric: tabular-nums; }
.plot .tick { fill: var(--soft); }
.plot .group { font-weight: 600; }
.plot line { stroke: var(--line); }
.plot line.zero { stroke: var(--soft); }
polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 0 0 8px; padding: 0; list-style: none;
  font-size: 0.9rem; }
.legend svg { height: 12px; margin-right: 6px; overflow: visible; }
.s0 { fill: var(--s0); stroke: var(--s0); } .s1 { fill: var(--s1); stroke: var(--s1); }
.s2 { fill: var(--s2); stroke: var(--s2); } .s3 { fill: var(--s3); stroke: var(--s3); }
.s4 { fill: var(--s4); stroke: var(--s4); } .s5 { fill: var(--s5); stroke: var(--s5); }
.s6 { fill: var(--s6); stroke: var(--s6); }
polyline[class] { fill: none; } rect[class] { stroke: none; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
thead th[colspan] { text-align: center; border-bottom-width: 1px; } thead td { border: 0; }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
tbody th { font-weight: 600; white-space: normal; overflow-wrap: break-word; min-width: 8em;
  max-width: 24em; }
tbody th code { font-weight: 400; margin-left: 4px; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-decoration: underline; text-underline-offset: 3px; }
th[aria-sort="ascending"]::after { content: " ▲"; } th[aria-sort="descending"]::after { content: " ▼"; }
.sheet { overflow-x: auto; }
.sheet img { display: block; width: 100%; min-width: 720px; height: auto; border-radius: 6px; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-bottom: 6px; overflow-wrap: anywhere;
  max-width: 85ch; }
dl { margin: 0 0 12px; }
dl div { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 3fr); gap: 4px 16px; padding: 3px 0;
  border-bottom: 1px solid var(--line); font-size: 0.92rem; }
dt { color: var(--soft); overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
details { margin-bottom: 8px; } summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media (max-width: 600px) {
  main { padding: 16px 10px 32px; } section { padding: 14px 12px; }
  h1 { font-size: 1.4rem; } th, td { padding: 5px 4px; }
  table { font-size: 0.85rem; } tbody th code { display: none; }
  dl div { grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); }
  .tiles { grid-template-columns: 1fr 1fr; } .tiles b { font-size: 1.3rem; }
  tbody th { min-width: 4.5em; max-width: 10em; }
}
"""

# Only convenience: a click on a column's name sorts by it, up and down in turn.
_SCRIPT = """
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const names = [...table.tHead.rows].at(-1).cells, body = table.tBodies[0];
  [...names].forEach((cell, column) => {
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    cell.append(button);
    button.onclick = () => {
      const down = cell.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of names) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
      const text = row => row.cells[column].textContent, number = row => {
        const value = parseFloat(text(row));
        return Number.isNaN(value) ? -1 : value;
      };
      body.append(...[...body.rows].sort((a, b) => down * (column === 0
        ? text(a).localeCompare(text(b), "en", { numeric: true }) : number(a) - number(b))));
    };
  });
}
"""
