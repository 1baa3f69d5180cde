"""What the site adds to its pages: the options of the command line, and tables whose words stay whole.

Named in mkdocs.yml twice: as a hook of MkDocs, and as an extension of griffe, which reads docstrings.
"""

import argparse
import re
from typing import Any

import griffe

from taskfarm.launch import cli

MARK = "<!-- options of every command -->"

UNBROKEN = re.compile(r"<t[dh][ >].*?</t[dh]>|(?<!<pre>)(?<!</span>)<code>[^<]*</code>", re.DOTALL)
"""A cell of a table, or code within a sentence."""

WORD = re.compile(r"[^\s<>]*(?:\w[-/|?]|-\w)[^\s<>]*(?![^<>]*>)")
"""A word in which a browser may break a line, outside of tags."""

WHOLE = r'<span class="word">\g<0></span>'


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the options of all commands where a page has the mark."""
    if MARK not in markdown:
        return markdown
    texts = [f"## {name}\n\n{options_of(parser)}" for name, parser in commands().items()]
    return markdown.replace(MARK, "\n".join(texts))


def on_page_content(html: str, **_: Any) -> str:
    """Keep the words of tables and of code whole: browsers break lines after hyphens and slashes."""
    return UNBROKEN.sub(lambda part: WORD.sub(WHOLE, part[0]), html)


def options_of(parser: argparse.ArgumentParser) -> str:
    """The options of a command as tables, one for each group of its help."""
    text = [f"    {parser.format_usage().removeprefix('usage: ').strip()}", ""]
    for group in parser._action_groups:
        rows = [row(action) for action in group._group_actions if action.help != argparse.SUPPRESS]
        if not rows:
            continue
        if group.title not in ("options", "positional arguments"):
            text += [f"**{group.title}**", ""]
        text += ["| | |", "|---|---|", *rows, ""]
    return "\n".join(text)


def row(action: argparse.Action) -> str:
    """One option, or one argument, as a row of a table."""
    names = ", ".join(action.option_strings) or action.metavar or action.dest
    values = "" if action.nargs in (0, argparse.REMAINDER) or not action.option_strings else value(action)
    # As code, so that no line ends after the hyphens of an option.
    texts = [re.sub(r"(?<!\S)--[a-z][a-z-]*", r"`\g<0>`", " ".join((action.help or "").split()))]
    if action.choices and not action.help:
        texts = ["one of " + ", ".join(f"`{choice}`" for choice in action.choices)]
    if action.default not in (None, False, argparse.SUPPRESS) and "default" not in texts[0]:
        texts.append(f"default: {action.default:g}" if isinstance(action.default, float) else "")
        texts[-1] = texts[-1] or f"default: {action.default}"
    return f"| `{names}{values}` | {'; '.join(filter(None, texts))} |".replace(" | |", " | |")


def value(action: argparse.Action) -> str:
    """What stands after an option."""
    if action.choices:
        return f" {{{','.join(map(str, action.choices))}}}"
    return f" {action.metavar or action.dest.upper()}"


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    for action in cli._parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise LookupError("the command line has no commands")


class WithoutPrivate(griffe.Extension):
    """Leaves out parameters that begin with an underscore: they are for the farm's own use."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Take them out of one signature."""
        for name in [parameter.name for parameter in func.parameters if parameter.name.startswith("_")]:
            del func.parameters[name]
