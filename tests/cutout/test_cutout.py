"""Cut-outs: the subject stays, the background goes, the edge is clean, and what went wrong is said."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from engine import cutout
from engine.cutout import Cutout, Models, apply_mask, checkerboard, cut_out, cut_out_element, retouch, uncut
from engine.cutout import cache as kept
from engine.cutout.matte import bleed, estimate_foreground, matte, refine
from engine.cutout.weights import Unavailable
from engine.errors import CutoutError, ImageError
from engine.scene.scene import Element

RED, GREEN, BLUE, WHITE = (210, 40, 40), (40, 160, 60), (50, 70, 200), (255, 255, 255)


def photo(size: tuple[int, int] = (320, 240), box: tuple[int, int, int, int] = (100, 60, 220, 200)) -> Image.Image:
    """A red ball with a soft edge on a busy blue-green background."""
    rng = np.random.default_rng(7)
    texture = Image.fromarray(rng.integers(0, 255, (size[1] // 8, size[0] // 8), dtype=np.uint8)).resize(size)
    picture = Image.composite(Image.new("RGB", size, GREEN), Image.new("RGB", size, BLUE), texture)
    picture.paste(RED, mask=ball(size, box))
    return picture


def ball(size: tuple[int, int] = (320, 240), box: tuple[int, int, int, int] = (100, 60, 220, 200)) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(1.5))


def alpha_of(result: Cutout | Image.Image) -> np.ndarray:
    return np.asarray((result.picture if isinstance(result, Cutout) else result).getchannel("A"))


class Painter:
    """A session that answers with a given mask, stretched over the photo, and counts."""

    def __init__(self, mask: Image.Image) -> None:
        self.mask, self.calls = mask, 0

    def predict(self, image: Image.Image) -> list[Image.Image]:
        self.calls += 1
        return [self.mask.resize(image.size)]


def with_mask(mask: Image.Image, *names: str) -> tuple[Models, Painter]:
    """Models that all answer with one mask; only those in `names` can be had, if any are named."""
    painter = Painter(mask)

    def load(model: str):
        if names and model not in names:
            raise Unavailable("no network")
        return painter

    return Models(load), painter


def without_models() -> Models:
    return with_mask(ball(), "none of them")[0]


# ---------------------------------------------------------------------------
# By a model


def test_a_cut_out_keeps_the_subject_in_the_photos_own_frame():
    models, _ = with_mask(ball())
    result = cut_out(photo(), models=models)
    assert result.picture.mode == "RGBA"
    assert result.picture.size == (320, 240)
    assert (result.source, result.doubts, result.notice) == ("u2netp", (), "")
    assert result.picture.getpixel((160, 130))[3] == 255
    assert result.picture.getpixel((10, 10))[3] == 0
    truth = np.asarray(ball()) >= 128
    assert ((alpha_of(result) >= 128) != truth).mean() < 0.01


def test_a_coarse_mask_is_pulled_to_the_photos_edge():
    coarse = ball().resize((32, 24)).resize((320, 240), Image.Resampling.BICUBIC)
    models, _ = with_mask(coarse)
    truth = np.asarray(ball(), dtype=np.float32)
    refined = np.abs(alpha_of(cut_out(photo(), models=models)) - truth).mean()
    assert refined < 0.6 * np.abs(np.asarray(coarse, dtype=np.float32) - truth).mean()


def test_islands_haze_and_pinholes_are_cleaned():
    mask = ball()
    draw = ImageDraw.Draw(mask)
    draw.rectangle((10, 10, 20, 20), fill=255)  # an island
    draw.rectangle((240, 150, 320, 240), fill=90)  # haze
    draw.point([(160, 130), (161, 130)], fill=0)  # a pinhole
    models, _ = with_mask(mask)
    alpha = alpha_of(cut_out(photo(), models=models))
    assert alpha[5:30, 5:30].max() == 0
    assert alpha[160:, 250:].max() == 0
    assert alpha[128:133, 158:164].min() == 255


def test_a_cups_handle_stays_open():
    mask = Image.new("L", (320, 240), 0)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((80, 40, 240, 200), fill=255)
    draw.ellipse((130, 90, 190, 150), fill=0)
    picture = Image.composite(Image.new("RGB", (320, 240), RED), Image.new("RGB", (320, 240), BLUE), mask)
    alpha = alpha_of(cut_out(picture, models=with_mask(mask)[0]))
    assert alpha[120, 160] == 0
    assert alpha[120, 100] == 255


def test_both_of_two_people_are_kept():
    mask = Image.new("L", (320, 240), 0)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((30, 60, 130, 220), fill=255)
    draw.ellipse((190, 60, 290, 220), fill=255)
    alpha = alpha_of(cut_out(photo(), models=with_mask(mask)[0]))
    assert alpha[140, 80] == 255
    assert alpha[140, 240] == 255


def test_edges_show_no_fringe_of_the_old_background():
    soft = ball().filter(ImageFilter.GaussianBlur(4))
    picture = Image.composite(Image.new("RGB", soft.size, RED), Image.new("RGB", soft.size, (0, 255, 0)), soft)
    alpha = np.asarray(soft, dtype=np.float32) / 255
    colours = np.asarray(picture, dtype=np.float32) / 255
    own = estimate_foreground(colours, alpha)
    edge = (alpha > 0.1) & (alpha < 0.9)
    clean = np.asarray(RED, dtype=np.float32) / 255
    before, after = (np.abs((values - clean) * alpha[..., None])[edge].mean() * 255 for values in (colours, own))
    assert before > 25
    assert after < 8, "levels, as seen over another background"
    assert np.array_equal(own[alpha == 1], colours[alpha == 1]), "inside, the photo is untouched"


def test_see_through_pixels_take_their_neighbours_colour():
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((*RED, 255), (20, 20, 44, 44))
    filled = np.asarray(bleed(picture))
    assert np.array_equal(filled[..., 3], np.asarray(picture)[..., 3])
    assert np.abs(filled[..., :3].astype(int) - RED).max() <= 2


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000)])
def test_a_large_photo_is_cut_out_at_the_working_size(size):
    models, _ = with_mask(ball())
    result = cut_out(Image.new("RGB", size, BLUE), models=models)
    assert max(result.picture.size) == cutout.WORKING_SIDE
    assert result.picture.width / result.picture.height == pytest.approx(size[0] / size[1], rel=0.01)


def test_the_standard_quality_uses_the_larger_model():
    models, _ = with_mask(ball())
    assert cut_out(photo(), quality="standard", models=models).source == "u2net"
    assert cut_out(photo(), quality="best", models=models).source == "birefnet-general-lite"


def test_an_unknown_quality_is_refused():
    with pytest.raises(CutoutError, match="fast, standard, best"):
        cut_out(photo(), quality="ultra")


@settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(16, 90), st.integers(16, 90), st.integers(0, 2**32 - 1))
def test_any_mask_on_any_photo_gives_a_picture_of_the_photos_size(width, height, seed):
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
    mask = Image.fromarray((rng.random((rng.integers(1, 50), rng.integers(1, 50))) ** 3 * 255).astype(np.uint8))
    result = matte(picture, mask)
    assert (result.mode, result.size) == ("RGBA", (width, height))


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_of_one_value_stays_that_value(value):
    colours = np.full((40, 50, 3), 0.5, np.float32)
    assert np.allclose(refine(colours, np.full((40, 50), value, np.float32)), value)


# ---------------------------------------------------------------------------
# Doubts


def doubts_for(mask: Image.Image) -> str:
    return " ".join(cut_out(photo(), models=with_mask(mask)[0]).doubts)


def test_an_empty_cut_out_is_doubtful():
    assert "empty" in doubts_for(Image.new("L", (320, 240), 0))


def test_a_cut_out_of_nearly_everything_is_doubtful():
    assert "nearly the whole photo" in doubts_for(Image.new("L", (320, 240), 255))


def test_a_cut_out_touching_all_four_borders_is_doubtful():
    cross = Image.new("L", (320, 240), 0)
    draw = ImageDraw.Draw(cross)
    draw.rectangle((130, 0, 190, 240), fill=255)
    draw.rectangle((0, 90, 320, 150), fill=255)
    assert "all four borders" in doubts_for(cross)


def test_a_bust_cropped_by_the_lower_border_is_not_doubtful():
    assert doubts_for(ball(box=(80, 60, 240, 400))) == ""


def test_every_doubt_says_what_to_do():
    for value in (0, 255):
        for doubt in cut_out(photo(), models=with_mask(Image.new("L", (320, 240), value))[0]).doubts:
            assert "as it is" in doubt
            assert "brush" in doubt


# ---------------------------------------------------------------------------
# The file's own alpha, and no cut-out


def test_a_pngs_alpha_is_the_cut_out():
    picture = photo().convert("RGBA")
    picture.putalpha(ball())
    models, painter = with_mask(ball())
    result = cut_out(picture, models=models)
    assert result.source == "alpha"
    assert painter.calls == 0
    assert np.array_equal(alpha_of(result), np.asarray(ball()))
    seen = np.asarray(ball()) > 0
    assert np.array_equal(np.asarray(result.picture)[seen], np.asarray(picture)[seen])


def test_a_tightly_cropped_png_is_not_doubtful():
    picture = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((0, 0, 99, 99), fill=RED)
    assert cut_out(picture, models=without_models()).doubts == ()


def test_a_png_that_is_see_through_throughout_is_doubtful():
    assert "empty" in cut_out(Image.new("RGBA", (100, 100), (9, 9, 9, 0)), models=without_models()).doubts[0]


def test_an_opaque_alpha_channel_is_cut_out_like_a_photo():
    models, painter = with_mask(ball())
    assert cut_out(photo().convert("RGBA"), models=models).source == "u2netp"
    assert painter.calls == 1


def test_uncut_is_the_photo_as_it_is():
    result = uncut(photo())
    assert (result.source, result.picture.mode) == ("none", "RGBA")
    assert result.picture.convert("RGB").tobytes() == photo().tobytes()
    assert alpha_of(result).min() == 255
    assert result.doubts == ()


def test_a_png_that_is_see_through_throughout_is_doubtful_also_as_it_is():
    clear = Image.new("RGBA", (100, 100), (9, 9, 9, 0))
    assert uncut(clear).doubts == cut_out(clear, models=without_models()).doubts != ()


# ---------------------------------------------------------------------------
# Without a model


def test_a_product_on_white_is_keyed_and_the_white_inside_it_stays():
    shot = Image.new("RGB", (320, 240), WHITE)
    draw = ImageDraw.Draw(shot)
    draw.rounded_rectangle((90, 40, 230, 210), 20, fill=BLUE)
    draw.ellipse((130, 90, 190, 150), fill=WHITE)
    result = cut_out(shot, models=without_models())
    assert result.source == "plain background"
    assert "no network" in result.notice
    alpha = alpha_of(result)
    assert alpha[120, 160] == 255, "the label"
    assert alpha[60, 160] == 255
    assert alpha[20, 20] == 0


def test_a_shaded_studio_backdrop_and_its_soft_shadow_go():
    fall_off = np.linspace(250, 215, 320)[None] - np.linspace(0, 10, 240)[:, None]
    shot = Image.fromarray(np.dstack([fall_off] * 3).astype(np.uint8))
    shadow = Image.new("L", shot.size, 0)
    ImageDraw.Draw(shadow).ellipse((70, 190, 250, 225), fill=80)
    shot.paste((40, 40, 40), mask=shadow.filter(ImageFilter.GaussianBlur(8)))
    ImageDraw.Draw(shot).ellipse((100, 60, 220, 205), fill=RED)
    result = cut_out(shot, models=without_models())
    assert result.source == "plain background"
    alpha = alpha_of(result)
    assert alpha[130, 160] == 255
    assert alpha[208, 80] == 0, "the shadow beside the product"
    assert abs((alpha > 127).sum() - np.pi * 60 * 72.5) < 0.05 * np.pi * 60 * 72.5


def test_a_bust_before_a_plain_wall_is_keyed():
    shot = Image.new("RGB", (320, 240), (150, 170, 190))
    ImageDraw.Draw(shot).ellipse((70, 60, 250, 420), fill=RED)
    result = cut_out(shot, models=without_models())
    assert result.source == "plain background"
    assert alpha_of(result)[239, 160] == 255
    assert alpha_of(result)[30, 30] == 0


def test_before_a_busy_background_grabcut_guesses_the_subject():
    result = cut_out(photo(), models=without_models())
    assert result.source == "grabcut"
    assert "guessed" in result.notice
    assert ((alpha_of(result) >= 128) != (np.asarray(ball()) >= 128)).mean() < 0.05


def test_a_guess_comes_out_the_same_every_time():
    once, again = (cut_out(photo(), models=without_models()).picture.tobytes() for _ in range(2))
    assert once == again


def test_a_photo_of_one_colour_is_empty_and_said_so():
    assert "empty" in cut_out(Image.new("RGB", (200, 100), WHITE), models=without_models()).doubts[0]


def test_an_unreachable_quality_falls_to_the_next_and_says_so():
    models, _ = with_mask(ball(), "u2netp")
    result = cut_out(photo(), quality="best", models=models)
    assert result.source == "u2netp"
    assert "birefnet-general-lite is out of reach" in result.notice
    assert "no network" in result.notice


def test_a_model_that_fails_on_a_photo_is_replaced():
    class Broken:
        def predict(self, image):
            raise MemoryError

    result = cut_out(photo(), models=Models(lambda model: Broken()))
    assert result.source == "grabcut"
    assert "MemoryError" in result.notice


def test_an_unreachable_model_is_not_waited_for_again_until_a_few_minutes_passed():
    now, asked = [1000.0], []

    def load(model: str):
        asked.append(model)
        raise Unavailable("no network")

    models = Models(load, clock=lambda: now[0])
    for _ in range(3):
        cut_out(photo(), models=models)
    assert len(asked) == 1
    now[0] += 3600
    cut_out(photo(), models=models)
    assert len(asked) == 2


# ---------------------------------------------------------------------------
# Threads


def test_from_many_threads_a_model_is_loaded_once_and_runs_one_at_a_time():
    loads, running, most = [], [0], [0]

    class Slow(Painter):
        def predict(self, image):
            running[0] += 1
            most[0] = max(most[0], running[0])
            time.sleep(0.01)
            running[0] -= 1
            return super().predict(image)

    def load(model: str):
        loads.append(model)
        time.sleep(0.02)
        return Slow(ball())

    models, results = Models(load), []
    threads = [threading.Thread(target=lambda: results.append(cut_out(photo(), models=models))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["u2netp"]
    assert most == [1]
    assert len({result.picture.tobytes() for result in results}) == 1
    assert len(results) == 6


def test_a_long_download_holds_up_only_its_own_quality():
    begun, release = threading.Event(), threading.Event()

    def load(model: str):
        if model == "u2net":
            begun.set()
            release.wait(120)
        return Painter(ball())

    models = Models(load)
    thread = threading.Thread(target=lambda: cut_out(photo(), quality="standard", models=models))
    thread.start()
    try:
        assert begun.wait(120)
        assert cut_out(photo(), models=models).source == "u2netp"
        assert thread.is_alive()
    finally:
        release.set()
        thread.join()


# ---------------------------------------------------------------------------
# The cache


def test_the_same_photo_is_cut_out_once(tmp_path):
    models, painter = with_mask(ball())
    first, second = (cut_out(photo(), cache=tmp_path, models=models) for _ in range(2))
    assert painter.calls == 1
    assert first.picture.tobytes() == second.picture.tobytes()
    assert (first.source, first.doubts, first.notice) == (second.source, second.doubts, second.notice)


def test_another_photo_or_quality_is_another_cut_out(tmp_path):
    models, painter = with_mask(ball())
    cut_out(photo(), cache=tmp_path, models=models)
    cut_out(photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT), cache=tmp_path, models=models)
    cut_out(photo(), quality="standard", cache=tmp_path, models=models)
    assert painter.calls == 3


def test_doubts_come_out_of_the_cache_too(tmp_path):
    models, _ = with_mask(Image.new("L", (320, 240), 0))
    for _ in range(2):
        assert "empty" in cut_out(photo(), cache=tmp_path, models=models).doubts[0]


@pytest.mark.parametrize("damage", [b"", b"not a picture", "cut"])
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    models, painter = with_mask(ball())
    good = cut_out(photo(), cache=tmp_path, models=models)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes()[:500] if damage == "cut" else damage)
    again = cut_out(photo(), cache=tmp_path, models=models)
    assert painter.calls == 2
    assert again.picture.tobytes() == good.picture.tobytes()
    cut_out(photo(), cache=tmp_path, models=models)
    assert painter.calls == 2


def test_a_fallback_is_not_served_once_the_model_is_there(tmp_path):
    assert cut_out(photo(), cache=tmp_path, models=without_models()).source == "grabcut"
    models, _ = with_mask(ball())
    assert cut_out(photo(), cache=tmp_path, models=models).source == "u2netp"
    lower, _ = with_mask(ball(), "u2netp")
    assert cut_out(photo(), quality="best", cache=tmp_path, models=lower).notice
    assert cut_out(photo(), quality="best", cache=tmp_path, models=models).source == "birefnet-general-lite"


def test_what_is_cached_needs_no_model(tmp_path):
    cut_out(photo(), cache=tmp_path, models=with_mask(ball())[0])
    assert cut_out(photo(), cache=tmp_path, models=without_models()).source == "u2netp"


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    models, _ = with_mask(ball())
    assert cut_out(photo(), cache=tmp_path / "file" / "cache", models=models).source == "u2netp"


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def full(self, file, *args, **kwargs):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    kept.put(tmp_path, "a", Image.new("RGBA", (32, 32)))
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_entries_go_first_and_other_files_stay(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 4), dtype=np.uint8), "RGBA")
    (tmp_path / "holiday.png").write_bytes(b"mine" * 100_000)
    for age, name in enumerate("cba"):
        kept.put(tmp_path, name, picture)
        when = time.time() - 1000 + age * 100
        os.utime(tmp_path / f"cutout-{name}.png", (when, when))
    kept.get(tmp_path, "c", (64, 64))  # used just now
    kept.prune(tmp_path, max_bytes=(tmp_path / "cutout-a.png").stat().st_size * 2)
    assert {path.name for path in tmp_path.iterdir()} == {"holiday.png", "cutout-a.png", "cutout-c.png"}


# ---------------------------------------------------------------------------
# By hand


def test_a_mask_file_decides():
    mask = Image.new("L", (160, 120), 0)  # half the photo's size
    mask.paste(255, (0, 0, 80, 120))
    result = apply_mask(photo(), mask)
    assert (result.source, result.doubts) == ("mask", ())
    assert alpha_of(result)[100, 50] == 255
    assert alpha_of(result)[100, 250] == 0


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_masks_of_every_mode_are_read(mode):
    mask = ball().point(lambda value: 255 * (value > 127)).convert(mode)
    assert ((alpha_of(apply_mask(photo(), mask)) >= 128) != (np.asarray(ball()) >= 128)).mean() < 0.01


def test_a_mask_in_an_alpha_channel_is_read():
    mask = Image.new("RGBA", (320, 240), (0, 0, 0, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 160, 240))
    assert alpha_of(apply_mask(photo(), mask))[100, 50] == 255
    assert alpha_of(apply_mask(photo(), mask))[100, 250] == 0


def test_an_empty_mask_and_a_mask_of_another_shape_are_doubtful():
    assert "inverted" in apply_mask(photo(), Image.new("L", (320, 240), 0)).doubts[0]
    assert "another shape" in apply_mask(photo(), Image.new("L", (100, 400), 255)).doubts[0]


def test_the_brush_adds_and_removes():
    before = cut_out(photo(), models=with_mask(ball())[0])
    add, remove = Image.new("L", (640, 480), 0), Image.new("L", (640, 480), 0)
    add.paste(255, (0, 0, 100, 100))  # in a canvas of twice the photo's size
    remove.paste(255, (300, 240, 340, 280))
    after = retouch(photo(), before, add, remove)
    assert alpha_of(after)[20, 20] == 255
    assert after.picture.getpixel((20, 20))[:3] == photo().getpixel((20, 20))
    assert alpha_of(after)[130, 160] == 0
    assert alpha_of(after)[100, 140] == alpha_of(before)[100, 140] == 255


def test_removing_wins_over_adding_and_no_strokes_change_nothing():
    before = cut_out(photo(), models=with_mask(ball())[0])
    stroke = Image.new("L", (320, 240), 255)
    assert alpha_of(retouch(photo(), before, stroke, stroke)).max() == 0
    assert np.array_equal(alpha_of(retouch(photo(), before, None, None)), alpha_of(before))


def test_brush_layers_with_alpha_are_strokes():
    before = cut_out(photo(), models=with_mask(ball())[0])
    layer = Image.new("RGBA", (320, 240), (0, 0, 0, 0))
    layer.paste((0, 0, 0, 255), (0, 0, 50, 50))  # a black brush paints as well as a white one
    assert alpha_of(retouch(photo(), before, layer, None))[20, 20] == 255
    assert alpha_of(retouch(photo(), before, layer, None))[20, 100] == 0


def test_the_brush_works_on_a_large_photo_at_the_cut_outs_size():
    large = photo().resize((3200, 2400))
    before = cut_out(large, models=with_mask(ball())[0])
    after = retouch(large, before, Image.new("L", (320, 240), 255), None)
    assert after.picture.size == before.picture.size == (1536, 1152)
    assert alpha_of(after).min() == 255


def test_strokes_for_another_photo_are_refused():
    before = cut_out(photo(), models=with_mask(ball())[0])
    with pytest.raises(CutoutError, match="another photo"):
        retouch(photo((100, 300)), before, None, None)


def test_the_brush_on_a_png_with_alpha_leaves_its_colours():
    emoji = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    emoji.paste((*RED, 255), mask=ball((100, 100), (20, 20, 80, 80)))
    remove = Image.new("L", (100, 100), 0)
    remove.paste(255, (0, 0, 50, 100))
    after = retouch(emoji, cut_out(emoji), None, remove)
    assert alpha_of(after)[50, 30] == 0
    assert after.picture.getpixel((70, 50)) == (*RED, 255)


# ---------------------------------------------------------------------------
# As a scene says


@pytest.fixture
def folder(tmp_path) -> Path:
    photo().save(tmp_path / "photo.png")
    ball().save(tmp_path / "mask.png")
    return tmp_path


def test_an_element_is_cut_out_as_it_says(folder):
    models, painter = with_mask(ball())

    def source(role: str, cutout: str) -> str:
        element = Element(role=role, image="photo.png", cutout=cutout)
        return cut_out_element(element, folder, models=models).source

    assert source("character", "auto") == "u2netp"
    assert source("object", "none") == "none"
    assert source("object", "mask.png") == "mask"
    assert painter.calls == 1


def test_a_background_is_never_cut_out_or_made_smaller(folder):
    Image.new("RGB", (2400, 1200), GREEN).save(folder / "place.png")
    models, painter = with_mask(ball())
    result = cut_out_element(Element(role="background", image="place.png"), folder, models=models)
    assert (result.picture.mode, result.picture.size, result.source) == ("RGB", (2400, 1200), "none")
    assert painter.calls == 0


def test_a_missing_mask_file_is_named(folder):
    with pytest.raises(ImageError, match=r"gone\.png"):
        cut_out_element(Element(role="object", image="photo.png", cutout="gone.png"), folder)


# ---------------------------------------------------------------------------
# The checkerboard


def test_the_checkerboard_shows_what_is_gone():
    result = cut_out(photo(), models=with_mask(ball())[0])
    board = checkerboard(result.picture, (200, 200))
    assert (board.mode, board.size) == ("RGB", (200, 200))
    red, green, blue = board.getpixel((100, 108))
    assert red > 180
    assert max(green, blue) < 90
    corner = np.asarray(board)[:40, :40]
    assert len(np.unique(corner)) == 2, "two greys"
