import pytest
from docs_scripts import docs_script

architecture = docs_script("draw_architecture")


def test_the_picture_of_the_rooms_is_up_to_date():
    assert architecture.picture() == architecture.PICTURE.read_text(), "Run python docs/draw_architecture.py"


def test_the_page_names_every_room():
    page = (architecture.DOCS / "architecture.md").read_text()
    assert [name for name in architecture.rooms() if f"| `{name}" not in page] == []


def test_an_arrow_that_follows_from_others_is_left_out():
    edges = {"top": {"middle", "bottom"}, "middle": {"bottom"}, "bottom": set()}
    assert architecture.reduced(edges) == {"top": {"middle"}, "middle": {"bottom"}, "bottom": set()}


def test_a_circle_of_imports_is_named():
    with pytest.raises(ValueError, match=r"circle: \['one', 'two'\]"):
        architecture.levels({"one": {"two"}, "two": {"one"}, "three": set()})
