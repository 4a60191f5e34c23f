"""The page's numbers follow the model that this machine has chosen."""

from __future__ import annotations

import pytest

from app.create.desk import checked_scene
from app.create.desks import Desks
from app.create.engines import Engines
from app.create.views import video_of
from app.machine.planner import Planner
from app.machine.settings import OwnerSettings
from app.models.getting import Getting
from engine.scene.presets import Preset, load_preset, save_preset
from engine.scene.scene import Sampling

V3 = "Skywork/SkyReels-V3-R2V-14B"


class Unknown(Planner):
    def hardware(self, patience=0.0):
        return None


@pytest.fixture
def settings(tmp_path):
    return OwnerSettings(tmp_path / "settings.json")


@pytest.fixture
def desks(tmp_path, settings):
    engines = Engines(settings, tmp_path / "loras", Unknown(tmp_path))
    return Desks(tmp_path / "desks", usual=engines.made_for)


def numbers(desk):
    scene = checked_scene(_with_somebody(desk), video_of(desk), 1)
    sampling = scene.sampling
    return sampling.steps, sampling.guidance, sampling.flow_shift, scene.video.fps, scene.video.trim_head


def _with_somebody(desk):
    from app.create.desk import with_anyone

    return with_anyone(desk)


def test_another_model_brings_its_own_numbers_and_those_set_for_the_first_are_dropped(desks, settings):
    desk = desks.new()
    desk.put("engine", "a2")
    assert numbers(desk) == (50, 5.0, 8.0, 15, 12)
    desk.put("sampling.steps", 33)
    settings.put(model=V3)
    assert numbers(desks.get(desk.id)) == (8, 1.0, 5.0, 24, 0)
    desk.put("sampling.steps", 12)
    assert numbers(desks.get(desk.id))[0] == 12, "what is set for the model that is chosen stays"
    settings.put(model="gudaochangsheng/RefAlign-1.3B")
    assert numbers(desks.get(desk.id)) == (50, 7.5, 5.0, 16, 0)


def test_a_folder_of_ones_own_counts_as_the_family_that_its_owner_named(desks, settings):
    desk = desks.new()
    desk.put("engine", "a2")
    settings.put(model="/somewhere/mine", family="phantom")
    assert numbers(desks.get(desk.id)) == (50, 7.5, 5.0, 16, 0)
    settings.put(model="/somewhere/mine", family="nonsense")
    assert numbers(desks.get(desk.id)) == (50, 5.0, 8.0, 15, 12)


def test_the_draft_and_what_a_reload_reads_are_not_touched_by_the_model(tmp_path, desks, settings):
    settings.put(model=V3)
    desk = desks.new()
    assert video_of(desk)["fps"] == 15
    desk.put("sampling.steps", 9)
    again = Desks(tmp_path / "desks", usual=desks._usual).get(desk.id)
    assert again.sheet.setting("sampling.steps") == 9


def test_guidance_of_the_references_is_offered_where_the_model_has_it(desks, settings):
    desk = desks.new()
    desk.put("engine", "a2")
    assert not desk.sheet.is_read("sampling.image_guidance")
    settings.put(model=V3)
    assert desks.get(desk.id).sheet.is_read("sampling.image_guidance")


def test_a_preset_has_numbers_for_each_family(tmp_path):
    preset = Preset(title="Mine", prompt="They meet.", models={"v3-r2v": Sampling(steps=12)})
    kept = load_preset(save_preset(preset, tmp_path))
    assert kept.sampling_for("a2") == Sampling()
    found = kept.sampling_for("v3-r2v")
    assert found is not None
    assert (found.steps, found.model_fields_set) == (12, {"steps"})
    assert kept.sampling_for("phantom") is None


def test_undo_brings_no_numbers_of_another_model_back(desks, settings):
    desk = desks.new()
    desk.put("engine", "a2")
    desk.put("prompt", "They meet.")
    desk.put("sampling.steps", 33)
    desk.remember("the preset")
    settings.put(model=V3)
    desk = desks.get(desk.id)
    desk.undo_last()
    assert numbers(desk) == (8, 1.0, 5.0, 24, 0)


def test_a_family_that_was_named_for_one_checkpoint_is_not_anothers(tmp_path, settings):
    getting = Getting(settings)
    settings.put(model=str(tmp_path / "gone"), family="phantom")
    assert getting.family is None
    getting.choose(V3, "phantom")
    assert (settings.get().model, settings.get().family) == (V3, "")
    settings.put(model=V3, family="phantom")  # as an earlier version kept it
    assert settings.model_in_use() == (V3, None)
