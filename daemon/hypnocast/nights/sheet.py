"""The sheet of paper that every report is: its look, its head, its notice, and its printing."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

from hypnocast import __version__
from hypnocast.core.wire.payloads import SourceName
from hypnocast.errors import CommandError, InstallError
from hypnocast.ports.durable_files import replace_file

NOTICE = "Research software: no diagnosis, no alarm function. Every stage needs a scorer's eye."
FORMS = ("html", "pdf", "png")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_WIDTH = 1060
_SCALE = 2
_PATIENCE_S = 60.0


def sheet(title: str, facts: list[tuple[str, str]], source: SourceName, body: str) -> str:
    """Return a whole page: no script, nothing fetched from anywhere."""
    lines = "".join(f"<div>{escape(name)} <b>{escape(value)}</b></div>" for name, value in facts)
    loud = ""
    if source != "live":
        word = {"simulated": "SIMULATED: no person slept here", "replay": "REPLAYED recording"}
        loud = f'<p class="notice loud">{word[source]}.</p>'
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escape(title)}</title><style>{_style()}</style></head><body>
<header><div><h1>{escape(title)}</h1><div class="soft">Hypnocast {__version__}</div></div>
<div class="facts">{lines}</div></header>
<p class="notice">{escape(NOTICE)}</p>{loud}
{body}
<footer>{escape(NOTICE)}</footer>
</body></html>
"""


def section(title: str, body: str, small: str = "") -> str:
    """Return a part of a sheet under its title."""
    note = f"<small>{escape(small)}</small>" if small else ""
    return f"<section><h2>{escape(title)}{note}</h2>{body}</section>"


def or_undefined(value: float | None, form: str) -> str:
    """Write a figure, or in words that it has no value."""
    return '<span class="none">undefined</span>' if value is None else form.format(value)


@cache
def _style() -> str:
    return (files("hypnocast.nights") / "sheet.css").read_text(encoding="utf-8")


def check_form(form: str) -> None:
    """Refuse a form that there is none of, before anything is worked out for it."""
    if form not in FORMS:
        raise CommandError(
            f"{form!r} is no format", where="--format", remedy=f"Use {', '.join(FORMS)}."
        )


def save(html: str, path: Path, form: str) -> None:
    """Write a sheet as ``html``, or have a browser print it as ``pdf`` or draw it as ``png``."""
    check_form(form)
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "html":
        replace_file(path, html.encode(), mode=0o666)
        return
    browser = _browser(form)
    with tempfile.TemporaryDirectory(prefix="hypnocast-sheet-") as folder:
        page, made = Path(folder) / "sheet.html", Path(folder) / f"made.{form}"
        page.write_text(html, encoding="utf-8")
        if form == "pdf":
            _browse(browser, page, f"--print-to-pdf={made}", "--no-pdf-header-footer")
        else:
            _draw(browser, page, made)
        if not made.is_file():
            raise InstallError(
                "the browser wrote nothing",
                where=browser,
                remedy="Use --format html, and print that.",
            )
        replace_file(path, made.read_bytes(), mode=0o666)


def _draw(browser: str, page: Path, path: Path) -> None:
    """Draw all of a sheet, however long: measured first, for a browser draws only a window."""
    from PIL import Image

    measuring = page.with_name("measured.html")
    text = page.read_text(encoding="utf-8")
    script = "document.title = 'height ' + document.documentElement.scrollHeight"
    allowed = re.sub(r"<meta http-equiv[^>]*>", "", text)
    measuring.write_text(f"{allowed}<script>{script}</script>", encoding="utf-8")
    window = f"--window-size={_WIDTH},900"
    found = re.search(r"<title>height (\d+)", _browse(browser, measuring, window, "--dump-dom"))
    height = min(int(found[1]) if found else 2000, 16_000)
    raw = page.with_name("sheet.png")
    _browse(
        browser,
        page,
        # A headless window keeps some rows for the bars it does not show.
        f"--window-size={_WIDTH},{height + 200}",
        f"--force-device-scale-factor={_SCALE}",
        "--hide-scrollbars",
        f"--screenshot={raw}",
    )
    with Image.open(raw) as image:
        image.crop((0, 0, image.width, min(image.height, height * _SCALE))).save(path)


def _browse(browser: str, page: Path, *options: str) -> str:
    command = [
        browser,
        "--headless",
        "--disable-gpu",
        "--no-first-run",
        "--no-sandbox",  # it shows one file of ours, without scripts and without network
        f"--user-data-dir={page.parent / 'profile'}",
        *options,
        page.as_uri(),
    ]
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_PATIENCE_S
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise InstallError(
            f"the browser failed: {type(error).__name__}",
            where=browser,
            remedy="Use --format html, and print that.",
        ) from error
    return done.stdout


def _browser(form: str) -> str:
    for name in _BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise InstallError(
        f"a {form.upper()} needs Chromium or Chrome, and there is none",
        where="--format",
        remedy="Install chromium, or use --format html and print that.",
    )
