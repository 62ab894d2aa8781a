import tracemalloc

from finetune.data.images import ImageInfo, Look
from finetune.data.images.appearance import Appearance
from finetune.data.quality.looks import Looks


def look(number):
    appearance = Appearance(number / 7, 0.1, 7.0 - number / 9000, 0.3)
    info = ImageInfo(500 + number % 9, 375, number % 3 == 0)
    return Look(
        info, ("RGB", "L")[number % 2], number.to_bytes(256, "little"), appearance, f"camera {number % 4}"
    )


def test_looks_come_back_as_they_were_in_the_order_in_which_they_were_added():
    looks = Looks()
    names = [f"{number}.jpg" for number in (5, 3, 8, 0)]
    for name in names:
        looks.add(name, look(int(name[0])))
    assert list(looks) == names
    assert looks == {name: look(int(name[0])) for name in names}
    assert "9.jpg" not in looks


def test_a_look_at_one_of_very_many_images_takes_less_than_half_a_kilobyte():
    names = [f"class_{n % 10}/{n:07}.jpg" for n in range(4096)]
    tracemalloc.start()
    looks = Looks()
    for number, name in enumerate(names):
        looks.add(name, look(number))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500 * len(names)
