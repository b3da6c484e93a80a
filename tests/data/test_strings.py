import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyespot.data.sources.strings import StringTable


@given(st.lists(st.text()))
def test_it_gives_back_what_went_in(strings):
    strings = [text.encode("utf-8", "ignore").decode() for text in strings]  # lone surrogates are no text
    table = pickle.loads(pickle.dumps(StringTable(strings)))
    assert len(table) == len(strings) and list(table) == strings
    assert [table[index] for index in range(-len(strings), len(strings))] == strings * 2


def test_file_names_that_are_no_utf8_survive():
    name = os.fsdecode(b"caf\xe9.jpg")
    assert StringTable([name, "b"])[0] == name


@pytest.mark.parametrize("index", [2, -3])
def test_beyond_the_ends(index):
    with pytest.raises(IndexError, match="of 2"):
        StringTable(["a", "b"])[index]
