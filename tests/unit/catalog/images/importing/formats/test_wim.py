import contextlib
import tracemalloc
from collections.abc import Callable

import pytest
from fleetcast_catalog.images.domain import ImageFileError, WimImage
from fleetcast_catalog.images.importing.formats.wim import HEADER_BYTES, Header, parse_xml, read_wim
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wimfile import TWO_EDITIONS, WimFile


def reader(file: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: file[offset : offset + size]


def images(file: bytes) -> tuple[WimImage, ...]:
    return read_wim(reader(file), len(file))[1]


def utf16(text: str) -> bytes:
    return b"\xff\xfe" + text.encode("utf-16-le")


def problem(file: bytes) -> str:
    with pytest.raises(ImageFileError) as caught:
        read_wim(reader(file), len(file))
    return caught.value.problem


def test_the_images_inside_are_described_as_the_xml_says() -> None:
    windows, data = images(WimFile(boot_index=1).pack())
    assert windows == WimImage(
        index=1,
        display_name="Windows 11 Pro",
        description="für Büros",
        edition="Professional",
        architecture="x64",
        languages=("de-DE", "en-US"),
        total_bytes=6789,
        file_count=345,
        directory_count=12,
        version="10.0.22631.3007",
        bootable=True,
    )
    assert data == WimImage(index=2, display_name="Data", total_bytes=1)


def test_a_pipable_file_is_read_by_the_header_at_its_end() -> None:
    assert len(images(WimFile(pipable=True).pack())) == 2


def test_a_pipable_file_without_its_last_header_is_truncated() -> None:
    assert "truncated" in problem(WimFile(pipable=True).pack()[:-1])


def test_a_solid_file_is_told_from_an_ordinary_one() -> None:
    assert Header.unpack(WimFile(version=0xE00).pack()).is_solid
    assert not Header.unpack(WimFile().pack()).is_solid


@pytest.mark.parametrize("keep", [1, 8, HEADER_BYTES - 1, HEADER_BYTES, 5000])
def test_a_file_that_ends_before_its_tables_is_truncated(keep: int) -> None:
    assert "truncated" in problem(WimFile().pack()[:keep])


def test_a_part_of_a_split_wim_is_refused_with_advice() -> None:
    assert "part 2 of 3" in problem(WimFile(part=(2, 3)).pack())


def test_a_file_that_was_never_finished_is_refused() -> None:
    assert "never finished" in problem(WimFile(flags=0x42).pack())


def test_a_header_that_counts_other_images_than_the_xml_is_corrupt() -> None:
    assert "counts 3 images" in problem(WimFile(image_count=3).pack())


def test_a_boot_index_beyond_the_images_is_corrupt() -> None:
    assert "bootable" in problem(WimFile(boot_index=3).pack())


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<WIM>",
        "<HTML/>",
        "<WIM><IMAGE INDEX='0'/></WIM>",
        "<WIM><IMAGE/></WIM>",
        "<WIM><IMAGE INDEX='1'/><IMAGE INDEX='1'/></WIM>",
        "<WIM><IMAGE INDEX='1'><TOTALBYTES>-5</TOTALBYTES></IMAGE></WIM>",
        "<WIM><IMAGE INDEX='1'><TOTALBYTES>9999999999999999999</TOTALBYTES></IMAGE></WIM>",
        "<!DOCTYPE WIM [<!ENTITY a 'aaaa'>]><WIM>&a;</WIM>",
        "<WIM>" + "<A>" * 100 + "</A>" * 100 + "</WIM>",
        "<WIM>" + "<A/>" * 100_001 + "</WIM>",
    ],
)
def test_xml_that_is_no_wims_is_corrupt(xml: str) -> None:
    with pytest.raises(ImageFileError, match="corrupt"):
        parse_xml(utf16(xml), 0)


def test_an_entity_bomb_takes_no_memory() -> None:
    entities = "".join(f"<!ENTITY e{i + 1} '{f'&e{i};' * 10}'>" for i in range(9))
    bomb = f"<!DOCTYPE WIM [<!ENTITY e0 'x'>{entities}]><WIM><IMAGE INDEX='1'><NAME>&e9;</NAME></IMAGE></WIM>"
    tracemalloc.start()
    with pytest.raises(ImageFileError):
        parse_xml(utf16(bomb), 0)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_xml_larger_than_any_real_one_is_not_even_read() -> None:
    file = WimFile(xml_bytes=bytes(17 << 20)).pack()
    asked = []

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return file[offset : offset + size]

    with pytest.raises(ImageFileError, match="at most"):
        read_wim(read, len(file))
    assert max(asked) == HEADER_BYTES


def test_an_overlong_text_is_cut() -> None:
    (image,) = parse_xml(utf16(f"<WIM><IMAGE INDEX='1'><NAME>{'n' * 100_000}</NAME></IMAGE></WIM>"), 0)
    assert len(image.display_name) == 4096


@given(st.binary(max_size=600))
def test_no_bytes_make_the_parser_raise_anything_but_its_own_error(file: bytes) -> None:
    with contextlib.suppress(ImageFileError):
        read_wim(reader(file), len(file))


@given(st.data())
def test_no_damage_to_a_file_makes_the_parser_raise_anything_but_its_own_error(data: st.DataObject) -> None:
    file = bytearray(WimFile(pipable=data.draw(st.booleans())).pack())
    for _ in range(data.draw(st.integers(1, 8))):
        near_the_tables = st.one_of(st.integers(0, 207), st.integers(len(file) - 1500, len(file) - 1))
        file[data.draw(near_the_tables)] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageFileError):
        read_wim(reader(bytes(file)), len(file))


@given(st.text(), st.integers(0, 5))
def test_no_xml_makes_the_parser_raise_anything_but_its_own_error(text: str, boot_index: int) -> None:
    inside = TWO_EDITIONS.replace("Professional", text)
    for xml in (text, inside):
        with contextlib.suppress(ImageFileError):
            parse_xml(b"\xff\xfe" + xml.encode("utf-16-le", errors="surrogatepass"), boot_index)
