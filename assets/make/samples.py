"""Make the sample cast again: `python assets/make/samples.py [photos] [cast] [backdrops]` (all of them by default).

photos     four photographs that scikit-image ships, as they are
cast       Fluent Emoji in 3D from the npm package (`npm pack`, needs npm and the network) and two cut-outs of the
           photographs
backdrops  stages, studios and streets, painted by `backdrops.py`: the same pixels for the same library versions

The results are kept in the repository: nobody needs this to use Troupe. Sources and licences: `assets/README.md`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
EMOJI_PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"

# File name of ours -> code points of the emoji, as the package names its files.
EMOJI = {
    "astronaut_man": "1f468-1f3fe-200d-1f680",
    "backpack": "1f392",
    "boots": "1f462",
    "box": "1f4e6",
    "bubble_tea": "1f9cb",
    "camera": "1f4f7",
    "cap": "1f9e2",
    "chef": "1f469-1f3fd-200d-1f373",
    "dancer_man": "1f57a-1f3fe",
    "dancer_man_2": "1f57a-1f3fb",
    "dancer_woman": "1f483-1f3fc",
    "dancer_woman_2": "1f483-1f3fd",
    "dress": "1f457",
    "drum": "1f941",
    "fairy": "1f9da-1f3fe-200d-2640-fe0f",
    "flamingo": "1f9a9",
    "fox": "1f98a",
    "gift": "1f381",
    "guitar": "1f3b8",
    "handbag": "1f45c",
    "headphones": "1f3a7",
    "heel": "1f460",
    "lipstick": "1f484",
    "lotion": "1f9f4",
    "microphone": "1f3a4",
    "moon": "1f319",
    "penguin": "1f427",
    "planet": "1fa90",
    "plant": "1fab4",
    "presenter_man": "1f481-1f3fe-200d-2642-fe0f",
    "presenter_woman": "1f481-1f3fc-200d-2640-fe0f",
    "radio": "1f4fb",
    "robot": "1f916",
    "rocket": "1f680",
    "runner_woman": "1f3c3-1f3fe-200d-2640-fe0f",
    "saxophone": "1f3b7",
    "singer_man": "1f468-1f3fb-200d-1f3a4",
    "singer_woman": "1f469-1f3fe-200d-1f3a4",
    "skateboard": "1f6f9",
    "sneaker": "1f45f",
    "star": "1f31f",
    "sunglasses": "1f576-fe0f",
    "t_shirt": "1f455",
    "teddy": "1f9f8",
    "umbrella": "2602-fe0f",
    "unicorn": "1f984",
    "walker_man": "1f6b6-1f3fb-200d-2642-fe0f",
    "walker_woman": "1f6b6-1f3ff-200d-2640-fe0f",
    "watch": "231a",
}

# Shown from the chest up: cut off where the emoji ends, so that they stand on the frame's edge as a cropped photo does.
BUSTS = {
    "astronaut_man", "chef", "presenter_man", "presenter_woman", "singer_man", "singer_woman", "unicorn",
}  # fmt: skip

# Outlines drawn by hand around the subjects, in pixels of the photographs; the matting finds the exact edge.
OUTLINES = {
    "astronaut": (
        (40, 511), (32, 497), (27, 482), (24, 458), (22, 430), (20, 400), (21, 385), (25, 360), (27, 338), (32, 322),
        (40, 300), (46, 280), (56, 256), (75, 236), (90, 224), (107, 212), (114, 203), (113, 190), (119, 184),
        (124, 175), (132, 163), (142, 153), (160, 149), (183, 148), (181, 130), (162, 106), (154, 80), (156, 60),
        (170, 44), (185, 37), (196, 24), (215, 17), (240, 15), (262, 19), (285, 34), (296, 55), (301, 85), (297, 110),
        (285, 126), (272, 136), (264, 146), (257, 172), (275, 185), (292, 205), (303, 230), (306, 236), (323, 244),
        (340, 263),
        (350, 284), (356, 298), (359, 320), (361, 333), (360, 340), (364, 347), (381, 345), (396, 343), (412, 343),
        (428, 347), (447, 357), (468, 375), (483, 395), (491, 415), (495, 434), (496, 450), (503, 453), (504, 457),
        (501, 462), (505, 470), (506, 482), (511, 485), (511, 511),
    ),
    "coffee": (
        (183, 68), (160, 80), (130, 100), (105, 125), (88, 155), (79, 190), (77, 225), (82, 255), (95, 290), (115, 320),
        (140, 345), (175, 367), (215, 381), (255, 388), (300, 389), (345, 383), (385, 370), (420, 350), (450, 320),
        (468, 285), (478, 250), (479, 220), (474, 185), (462, 155), (445, 130), (425, 110), (415, 103), (424, 85),
        (425, 72), (415, 66), (402, 68), (397, 72), (385, 50), (365, 35), (335, 23), (300, 18), (270, 18), (235, 26),
        (205, 42), (185, 60),
    ),
}  # fmt: skip


# Emoji whose outermost pixels the package has lighter than the rest, here and there: a dotted line on a dark ground.
# From which row on: further up it would blur the face.
DOTTED = {"walker_man": 132}

HAIR_ENDS = {"astronaut": 138}  # the row above which the outline runs along hair, which needs a wider band


def main(parts: list[str]) -> None:
    """Make the named parts, or all."""
    if not parts or "photos" in parts:
        save_photos()
    if not parts or "cast" in parts:
        save_emoji()
        save_cut_outs()
    if not parts or "backdrops" in parts:
        from backdrops import BACKDROPS, paint  # beside this script

        for name in BACKDROPS:
            write(SAMPLES / "backdrops" / f"{name}.jpg", paint(name), quality=88, optimize=True)


def write(path: Path, picture: Image.Image, **options) -> None:
    """Write a picture and say its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    print(f"{path.relative_to(SAMPLES.parent)}  {picture.width}x{picture.height}  {path.stat().st_size // 1024} KB")


def save_photos() -> None:
    """Photographs that come inside the scikit-image package."""
    from skimage import data

    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        write(SAMPLES / "photos" / f"{name}.jpg", Image.fromarray(getattr(data, name)()), quality=92, optimize=True)


def save_emoji() -> None:
    """Fetch the npm package with npm's own client and keep the emoji named in EMOJI."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not installed; it fetches the emoji. Install Node.js, or keep the pictures that are here.")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([npm, "pack", "--silent", EMOJI_PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            for name, code in EMOJI.items():
                data = archive.extractfile(f"package/assets/{code}.webp").read()
                picture = Image.open(io.BytesIO(data)).convert("RGBA")
                if name in BUSTS:
                    picture = picture.crop((0, 0, picture.width, picture.getchannel("A").getbbox()[3] - 2))
                if name in DOTTED:
                    picture = even_rim(picture, DOTTED[name])
                write(SAMPLES / "cast" / f"{name}.webp", enlarge(picture), quality=88, method=6, exact=False)


def even_rim(picture: Image.Image, first_row: int) -> Image.Image:
    """The colour of the outermost three pixels, from a row on downwards, taken from the nearest pixel further in and
    smoothed along the edge; alpha stays."""
    rgba = np.asarray(picture)
    inner = cv2.erode((rgba[..., 3] > 250).astype(np.uint8), np.ones((7, 7), np.uint8))
    _, nearest = cv2.distanceTransformWithLabels(1 - inner, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    palette = np.zeros((nearest.max() + 1, 3), np.uint8)
    palette[nearest[inner == 1]] = rgba[inner == 1, :3]
    smooth = cv2.GaussianBlur(cv2.medianBlur(palette[nearest], 5), (0, 0), 0.8)
    rim = inner == 0
    rim[:first_row] = False
    return Image.fromarray(np.dstack([np.where(rim[..., None], smooth, rgba[..., :3]), rgba[..., 3]]))


def enlarge(picture: Image.Image) -> Image.Image:
    """Twice as large (Lanczos on premultiplied colour, mild unsharp mask): a draft shows a cut-out larger than the
    package's 256 pixels, and an encoder's bilinear stretch would look soft."""
    rgba = np.asarray(picture, np.float32) / 255
    alpha = rgba[..., 3:]
    size = (picture.width * 2, picture.height * 2)
    large = cv2.resize(np.dstack([rgba[..., :3] * alpha, alpha]), size, interpolation=cv2.INTER_LANCZOS4)
    # Divided before it is clipped: alpha overshoots along the edge as the colours do, else a light dotted line is left.
    colour, alpha = np.clip(large[..., :3] / np.maximum(large[..., 3:], 1e-3), 0, 1), np.clip(large[..., 3:], 0, 1)
    # The blur of the subject alone: against the black around it, the mask would draw that line as well.
    weight = np.maximum(cv2.GaussianBlur(alpha, (0, 0), 1.6)[..., None], 1e-3)
    soft = cv2.GaussianBlur(colour * alpha, (0, 0), 1.6) / weight
    colour = np.clip(colour + 0.45 * alpha * (colour - soft), 0, 1)
    alpha = np.clip((alpha - 0.5) * 1.5 + 0.5, 0, 1)  # the edge as narrow as it was before, in large pixels
    return Image.fromarray((np.dstack([colour, alpha]) * 255 + 0.5).astype(np.uint8))


def save_cut_outs() -> None:
    """Two photographs cut out along their outlines: closed-form matting (Levin 2008) in a band around the outline."""
    from pymatting import estimate_alpha_cf, estimate_foreground_ml
    from skimage import data

    for name, outline in OUTLINES.items():
        photo = getattr(data, name)() / 255.0
        inside = np.zeros(photo.shape[:2], np.uint8)
        cv2.fillPoly(inside, [np.array(outline, np.int32)], 255)
        trimap = known(inside, 7)
        hair = HAIR_ENDS.get(name, 0)
        trimap[:hair] = known(inside, 13)[:hair]
        alpha = np.clip((estimate_alpha_cf(photo, trimap) - 0.08) / 0.84, 0, 1)
        colour = estimate_foreground_ml(photo, alpha)
        cut = Image.fromarray((np.dstack([np.clip(colour, 0, 1), alpha]) * 255 + 0.5).astype(np.uint8))
        write(SAMPLES / "cast" / f"{name}.webp", cut, quality=90, method=6)


def known(inside: np.ndarray, reach: int) -> np.ndarray:
    """A trimap: 1 and 0 where it is sure that the subject is there or not, 0.5 in a band `reach` pixels wide."""
    band = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    trimap = np.full(inside.shape, 0.5)
    # The subject goes on beyond the photograph's border: nothing is uncertain there.
    trimap[cv2.erode(inside, band, borderType=cv2.BORDER_REPLICATE) == 255] = 1
    trimap[cv2.dilate(inside, band) == 0] = 0
    return trimap


if __name__ == "__main__":
    main(sys.argv[1:])
