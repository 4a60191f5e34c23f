"""Names in a prompt: found in every script, however they are spelled, and by one matcher for the whole house."""

from __future__ import annotations

import unicodedata

import pytest

from engine.draft.direct import direct
from engine.scene.prompt import find_names, folded, replace_names
from engine.scene.scene_file import scene_from_data

# names, prompt, what of it are mentions
CASES = {
    "Chinese": (["小明", "吉他"], "小明在舞台上弹吉他。", ["小明", "吉他"]),
    "Japanese": (["さくら", "傘"], "さくらが傘を持って歩く", ["さくら", "傘"]),
    "Japanese, an object of the page": (["商品 2"], "「商品 2が踊る」", ["商品 2"]),
    "Thai": (["สมชาย"], "สมชายเดินบนเวที", ["สมชาย"]),
    "Korean, with particles": (["민지"], "민지가 춤춘다. 민지에게서 온 편지", ["민지", "민지"]),
    "Korean, inside other names": (["민지"], "김민지와 민지수", []),
    "Latin in Chinese": (["Mia"], "小红和Mia在跳舞", ["Mia"]),
    "Latin with a Korean particle": (["Mia"], "Mia가 춤춘다", ["Mia"]),
    "Hindi": (["मीरा"], "मीरा नाचती है", ["मीरा"]),
    "Hindi, inside another word": (["मा"], "सीमा", []),
    "Arabic": (["محمد"], "محمد يرقص", ["محمد"]),
    "Cyrillic": (["Иван"], "иван идёт, Иванов нет", ["иван"]),
    "the name decomposed": (["Jose\u0301"], "José dances", ["José"]),
    "the prompt decomposed": (["José"], "Jose\u0301 dances", ["Jose\u0301"]),
    "Korean decomposed": (["민지"], unicodedata.normalize("NFD", "민지가"), [unicodedata.normalize("NFD", "민지")]),
    "without its accent": (["Jose"], "Jose\u0301 dances", []),
    "a telephone's apostrophe": (["O'Neil"], "O’Neil’s dog", ["O’Neil"]),
    "the other way round": (["O’Neil"], "O'Neil dances", ["O'Neil"]),
    "another hyphen": (["Anna-Lee"], "Anna\u2011Lee dances", ["Anna\u2011Lee"]),
    "an emoji": (["🦊"], "the 🦊dances", ["🦊"]),
    "an emoji in its other form": (["❤️"], "a ❤ beats", ["❤"]),
    "an emoji inside another": (["👨"], "👨\u200d👩\u200d👧 and 👨🏽", []),
    "signs": (["P!nk", "C++", "#1"], "P!nk writes C++ as #1", ["P!nk", "C++", "#1"]),
    "signs with more behind": (["C++", "#1"], "C++11 and #12", []),
    "the longest": (["Ann", "Anna", "Ann Lee"], "Ann\u00a0Lee meets Anna and Ann's", ["Ann\u00a0Lee", "Anna", "Ann"]),
    "plurals": (["cup"], "two cups, a cupboard", ["cup"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_name_is_found_where_a_reader_finds_it(case):
    names, prompt, said = CASES[case]
    assert [prompt[found.start : found.end] for found in find_names(prompt, names)] == said


@pytest.mark.parametrize("case", [name for name, (_, _, said) in CASES.items() if len(said) == 1])
def test_who_is_found_is_renamed_and_moved_by_the_draft_as_well(case):
    names, prompt, said = CASES[case]
    assert replace_names(prompt, names, dict.fromkeys(range(len(names)), "Zed")).count("Zed") == 1
    cast = [{"role": "character", "name": name, "image": "x.png"} for name in names]
    scene = scene_from_data({"cast": cast, "prompt": f"{said[0]} dances."})
    assert [act.motion for act in direct(scene).acts.values()] == ["dance"]


def test_the_nameless_are_moved_by_their_labels():
    cast = [{"role": "character", "image": "x.png"}, {"role": "character", "image": "y.png"}]
    plan = direct(scene_from_data({"cast": cast, "prompt": "Character 2 runs while Character 1 stands."}))
    assert [plan.acts[i].motion for i in (0, 1)] == ["idle", "run"]


def test_two_spellings_of_one_name_are_the_same():
    assert folded("Zoë") == folded("ZOE\u0308")
    assert folded("O’Neil  Anna") == folded("o'neil anna")
    assert folded("Anna") != folded("Ana")
