"""Make the README's pictures again: `python assets/make/readme.py`. The page is the real one, in a headless Chromium;
the clips are the sample scenes, as the draft engine makes them today."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run as a script, from anywhere

from engine.door.render import RenderRequest, render  # noqa: E402
from engine.media.video import read_frames  # noqa: E402
from engine.scene.scene import load_scene  # noqa: E402
from tests.live import chromium, serving  # noqa: E402

OUT = ROOT / "assets" / "readme"
CLIPS = ("dance_floor", "lifestyle_scene", "dream_walk", "model_holds_product")
TILE = (416, 240)  # pixels: half a clip
STEP = 3  # every third frame: 5 a second


def page(outputs: Path) -> None:
    """The Create page with a preset picked, at a desktop's size."""
    with serving(outputs) as live, chromium() as browser:
        shot = browser.new_page(viewport={"width": 1360, "height": 900}, color_scheme="light")
        shot.goto(live.url)
        shot.locator(".tr-preset").nth(8).click()
        shot.locator(".tr-card").first.wait_for()
        shot.wait_for_timeout(1500)
        shot.screenshot(path=outputs / "page.png")
    Image.open(outputs / "page.png").convert("RGB").save(OUT / "page.webp", quality=84, method=6)


def clips(folder: Path) -> None:
    """Four clips in a square, as one animated WebP."""
    columns = []
    for name in CLIPS:
        samples = ROOT / "assets" / "samples"
        result = render(RenderRequest(load_scene(samples / f"{name}.json"), samples, folder / f"{name}.mp4"))
        frames = [Image.fromarray(frame).resize(TILE, Image.Resampling.LANCZOS) for frame in read_frames(result.path)]
        columns.append(frames[::STEP])
    sheets = []
    for moment in zip(*columns, strict=False):
        sheet = Image.new("RGB", (2 * TILE[0], 2 * TILE[1]))
        for place, tile in enumerate(moment):
            sheet.paste(tile, (place % 2 * TILE[0], place // 2 * TILE[1]))
        sheets.append(sheet)
    sheets[0].save(
        OUT / "clips.webp",
        save_all=True,
        append_images=sheets[1:],
        duration=1000 * STEP // 15,
        loop=0,
        quality=58,
        method=5,
    )


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        clips(Path(scratch))
        page(Path(scratch))
    for made in sorted(OUT.iterdir()):
        print(f"{made.relative_to(ROOT)}  {made.stat().st_size // 1024} KB")
