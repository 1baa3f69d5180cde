"""What a notebook shows of a farm, a future or the results of a map."""

import html
from collections.abc import Mapping


def table(title: str, rows: Mapping[str, object]) -> str:
    """A table of two columns, in HTML.

    Parameters
    ----------
    title : str
        Its caption.
    rows : mapping of str to object
        The text of each object is shown beside its name. Numbers get separators of thousands.
    """
    cells = "".join(
        f'<tr><th scope="row" style="text-align: left">{html.escape(name)}</th>'
        f'<td style="text-align: left">{html.escape(_text(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{cells}</tbody></table>"


def _text(value: object) -> str:
    return f"{value:,}" if type(value) is int else str(value)
