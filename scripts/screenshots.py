"""Takes the screenshots of the documentation, with tmux and Chromium.

    python scripts/screenshots.py

Trains two runs on generated phrases in runs/, or resumes them. Shows their pages in Chromium, and commands in a
terminal of 100 columns. The plots of `seqlab diagnose` are those of docs/guides/diagnose.md. Needs `tmux` and
`chromium`.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import ROOT
from PIL import Image, ImageChops
from rich.console import Console
from rich.text import Text

DOCS = ROOT / "docs"
RUN, SHORT = "runs/quickstart", "runs/quickstart-150"
COLUMNS, ROWS = 100, 60
PROMPT = "$ "
TEXT = "Friday, Tuesday, and 34 minutes ago"
TERMINAL = (
    f'echo "{TEXT}" | seqlab decode {RUN} --nbest 3',
    f"seqlab decode {RUN} --beam 0",
    "seqlab runs runs",
)
PLOTS = {
    "gradients_over_time": "diagnose_gradients",
    "activations": "diagnose_activations",
    "updates": "diagnose_updates",
    "learning_rate": "diagnose_rates",
}
MARGIN = 16  # pixels around a picture
# Keeps only the sections with these titles.
SELECT = """<script>
let kept = false;
for (const node of [...document.body.children]) {
  if (node.tagName === "H2") kept = SECTIONS.includes(node.textContent);
  if (!kept) node.remove();
}
</script></body>"""


def main() -> None:
    seqlab("train", "configs/quickstart.py", "--out", RUN)
    seqlab("train", "configs/quickstart.py", "--out", SHORT, "--steps", "150", "--validation.every", "50")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_terminal(folder, "terminal")
        page = folder / "inspect.html"
        seqlab("inspect", RUN, "--text", TEXT, "--out", str(page))
        photograph(select(page, "Text", "The beam", "Attention"), DOCS / "inspect.png")
        page = folder / "report.html"
        limits = ("--lines", "300", "--beams", "1", "2", "5", "10", "--exact", "30")
        seqlab("report", SHORT, RUN, "--split", "test", "--out", str(page), *limits)
        photograph(select(page, "Runs", "Scores", "Learning curves"), DOCS / "report.png")
        photograph(select(page, "Search errors and model errors"), DOCS / "report_faults.png")
        plots = folder / "diagnosis"
        seqlab("diagnose", "configs/adding_problem.py", "--model.encoder.cell", "irnn", "--out", str(plots))
        for plot, picture in PLOTS.items():
            shutil.copyfile(plots / f"{plot}.png", DOCS / f"{picture}.png")


def seqlab(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "seqlab", *arguments], cwd=ROOT, check=True)


def draw_terminal(folder: Path, name: str) -> None:
    """Types the commands in a terminal, and writes a picture of its screen."""
    screen = Text.from_ansi(type_commands())
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(screen)
    page = folder / f"{name}.html"
    page.write_text(console.export_html(inline_styles=True), encoding="utf-8")
    photograph(page, DOCS / f"{name}.png")


def type_commands() -> str:
    """Returns the screen of a terminal after the commands, with its escape sequences for colors."""
    tmux = ("tmux", "-L", "screenshots", "-f", os.devnull)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    size = ("-x", str(COLUMNS), "-y", str(ROWS))
    shell = f"PS1='{PROMPT}' bash --norc --noprofile"
    subprocess.run([*tmux, "new-session", "-d", *size, shell], cwd=ROOT, env=environment, check=True)
    try:
        wait_for_prompt(tmux)
        for command in TERMINAL:
            subprocess.run([*tmux, "send-keys", "-l", command], check=True)
            subprocess.run([*tmux, "send-keys", "Enter"], check=True)
            wait_for_prompt(tmux)
        capture = [*tmux, "capture-pane", "-p", "-e", "-t", "0"]
        screen = subprocess.run(capture, capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    return screen.rstrip().removesuffix(PROMPT.strip()).rstrip()


def wait_for_prompt(tmux: tuple[str, ...]) -> None:
    """Waits until the last line of the screen is a prompt without a command."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(0.5)
        screen = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout
        if screen.rstrip("\n").rpartition("\n")[2].rstrip() == PROMPT.rstrip():
            return
    sys.exit("the terminal did not return to its prompt within 2 minutes")


def select(page: Path, *sections: str) -> Path:
    """Writes a copy of a page that shows only these sections."""
    script = SELECT.replace("SECTIONS", json.dumps(sections))
    copy = page.with_name(f"selected-{page.name}")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    return copy


def photograph(page: Path, picture: Path, width: int = 1000, height: int = 2400) -> None:
    """Writes a picture of a page in Chromium, cropped to its content."""
    size = f"--window-size={width},{height}"
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000")
    subprocess.run(
        ["chromium", *options, size, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True
    )
    image = Image.open(picture).convert("RGB")
    background = Image.new("RGB", image.size, image.getpixel((image.width - 1, image.height - 1)))
    left, top, right, bottom = ImageChops.difference(image, background).getbbox() or (0, 0, *image.size)
    if right == width or bottom == height:
        sys.exit(f"{picture}: the page is cut off at {width} x {height} pixels: raise them")
    box = (max(left - MARGIN, 0), max(top - MARGIN, 0), min(right + MARGIN, width), min(bottom + MARGIN, height))
    image.crop(box).save(picture, optimize=True)


if __name__ == "__main__":
    main()
