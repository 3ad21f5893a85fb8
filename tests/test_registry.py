"""Registries find the classes of a folder by importing it."""

from __future__ import annotations

import sys
import textwrap

import pytest

from hf_hierrobust.registry import Registry


@pytest.fixture
def room(tmp_path, monkeypatch) -> Registry:
    """A package with an empty registry, whose two modules register one class each."""
    package = tmp_path / "toyroom"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        "from hf_hierrobust.registry import Registry\nTOYS = Registry('toy', 'toyroom')\n"
    )
    for name in ("ball", "bell"):
        package.joinpath(f"{name}.py").write_text(
            textwrap.dedent(f"""
                from toyroom import TOYS

                @TOYS.register
                class {name.title()}:
                    name = "{name}"
                """)
        )
    monkeypatch.syspath_prepend(tmp_path)
    import toyroom

    yield toyroom.TOYS
    for module in [m for m in sys.modules if m.split(".")[0] == "toyroom"]:
        del sys.modules[module]


def test_names_and_get_import_the_modules_of_the_folder(room):
    assert "toyroom.ball" not in sys.modules
    assert room.get("ball").__name__ == "Ball"
    assert room.names() == ["ball", "bell"]


def test_unknown_name_lists_the_known_and_the_nearest(room):
    with pytest.raises(KeyError, match=r"unknown toy 'bal': choose one of ball, bell; did you mean 'ball'\?"):
        room.get("bal")
    with pytest.raises(KeyError) as caught:
        room.get("zzz")
    assert "did you mean" not in str(caught.value)


def test_register_returns_the_class_and_may_repeat_it(room):
    class Drum:
        name = "drum"

    assert room.register(Drum) is Drum
    assert room.register(Drum) is Drum
    assert room.get("drum") is Drum


def test_two_classes_of_one_name_and_nameless_classes_are_refused(room):
    room.names()

    class Other:
        name = "ball"

    class Nameless:
        name = ""

    with pytest.raises(ValueError, match=r"toy 'ball' is registered twice: .*Ball.* and .*Other"):
        room.register(Other)
    for cls in (Nameless, object):
        with pytest.raises(ValueError, match=rf"toy {cls.__name__} has no name"):
            room.register(cls)
    assert room.names() == ["ball", "bell"]


def test_an_instance_that_is_handed_over_has_a_name_of_its_own(room):
    ball = room.get("ball")

    class Balloon(ball):
        pass

    class Kite:
        name = "kite"

    class Nameless:
        pass

    kite = Kite()
    assert room.check(kite) is kite and room.check(ball()) is not None
    with pytest.raises(ValueError, match="toy Balloon goes by the name 'ball' of Ball"):
        room.check(Balloon())
    with pytest.raises(ValueError, match="toy Nameless has no name"):
        room.check(Nameless())
    Kite.name = "../kite"
    with pytest.raises(ValueError, match="names files"):
        room.check(kite)


def test_attacks_and_objectives_of_the_package_are_found():
    from hf_hierrobust.attacks import ATTACKS, PGD, TRAINING_ATTACKS, TrainingPGD
    from hf_hierrobust.objectives import OBJECTIVES

    assert ATTACKS.get("pgd") is PGD
    assert TRAINING_ATTACKS.get("pgd") is TrainingPGD
    assert {"pgd", "universal", "leaf", "per_level"} <= set(TRAINING_ATTACKS.names())
    assert {"hier_robust", "tecoa"} <= set(OBJECTIVES.names())
