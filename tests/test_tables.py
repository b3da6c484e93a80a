"""Markdown tables."""

from eyespot.tables import markdown_table


def test_names_stand_to_the_left_and_numbers_to_the_right():
    text = markdown_table(["model", "mIoU"], [("a", "1.0"), ("b", "2.0")])
    assert text == "| model | mIoU |\n| --- | ---: |\n| a | 1.0 |\n| b | 2.0 |"


def test_words_stand_to_the_left_everywhere():
    assert markdown_table(["", ""], [], numbers=False) == "|  |  |\n| --- | --- |"


def test_a_bar_inside_a_cell_ends_no_cell():
    assert markdown_table(["x|y"], [["a|b"]]) == "| x\\|y |\n| --- |\n| a\\|b |"
