"""The HTML page of a report, which refers to picture files beside it."""

import dataclasses
import html
import pathlib
import urllib.parse
from collections.abc import Sequence

from colorjax import files

_STYLE = '''
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #f4f4f4;
       max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ccc; }
th, .words { text-align: left; }
td { text-align: right; font-variant-numeric: tabular-nums; white-space: pre; }
.words { white-space: normal; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #555; }
pre { background: #e8e8e8; padding: .8rem; overflow-x: auto; }
'''


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of texts.

  Attributes:
    caption: describes the table.
    header: title of each column. The first column has the names of the rows.
    rows: texts of each row, as many as in the header. Line breaks are kept.
    words: titles of the columns that contain words, not numbers.
    notes: sentences below the table.
  """
  caption: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  words: Sequence[str] = ()
  notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture of the page.

  Attributes:
    file: path of the picture, relative to the page.
    title: heading above the picture.
    caption: description below the picture.
  """
  file: str
  title: str
  caption: str = ''


def index_html(*, title: str, tables: Sequence[Table],
               figures: Sequence[Figure], command: str, settings: str) -> str:
  """The page as HTML. All arguments are escaped.

  Args:
    title: title of the page.
    tables: tables, shown first.
    figures: pictures, shown below the tables.
    command: command that reproduces the result, or ''.
    settings: flags of the command, one per line, or ''.

  Returns:
    HTML that is also well-formed XML.

  Raises:
    ValueError: a row of a table does not have as many texts as its header.
  """
  body = [f'<h1>{html.escape(title)}</h1>']
  body += [_table_html(table) for table in tables]
  for figure in figures:
    source = html.escape(urllib.parse.quote(figure.file))
    body.append(
        f'<h2>{html.escape(figure.title)}</h2>\n'
        f'<figure><a href="{source}"><img src="{source}" '
        f'alt="{html.escape(figure.title)}" /></a>\n'
        f'<figcaption>{html.escape(figure.caption)}</figcaption></figure>')
  for heading, text in (('Command', command), ('Flags', settings)):
    if text:
      body.append(f'<h2>{heading}</h2>\n<pre>{html.escape(text)}</pre>')
  return (
      '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
      '<meta name="viewport" content="width=device-width" />\n'
      f'<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n'
      '</head>\n<body>\n' + '\n'.join(body) + '\n</body>\n</html>\n')


def write_index(path: pathlib.Path, **contents) -> None:
  """Writes `index_html(**contents)` atomically.

  Args:
    path: the file to write.
    **contents: arguments of `index_html`.

  Raises:
    UserError: the file cannot be written.
  """
  # Paths on the page may contain bytes that are not UTF-8.
  files.write_bytes(
      path, index_html(**contents).encode(errors='backslashreplace'))


def _table_html(table: Table) -> str:
  if any(len(row) != len(table.header) for row in table.rows):
    raise ValueError(
        f'each row of {table.caption!r} needs {len(table.header)} texts')
  # Long names of metrics may break after an underscore.
  header = ''.join(
      f'<th scope="col">{html.escape(text).replace("_", "_<wbr />")}</th>'
      for text in table.header)
  cell = ['<td class="words">' if title in table.words else '<td>'
          for title in table.header[1:]]
  rows = []
  for name, *values in table.rows:
    cells = ''.join(f'{opening}{html.escape(text)}</td>'
                    for opening, text in zip(cell, values, strict=True))
    rows.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
  notes = ''.join(f'\n<p>{html.escape(note)}</p>' for note in table.notes)
  return ('<div class="wide">\n<table>\n'
          f'<caption>{html.escape(table.caption)}</caption>\n'
          f'<thead><tr>{header}</tr></thead>\n<tbody>\n' + '\n'.join(rows) +
          f'\n</tbody>\n</table>\n</div>{notes}')
