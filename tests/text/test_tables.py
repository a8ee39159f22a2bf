from tensorflow_quantization.text.tables import markdown_table, text_table


def test_text_columns_are_as_wide_as_their_widest_cell():
    assert text_table(["a", "long title"], [["wider", 1], ["x", None]]).splitlines() == [
        "a      long title",
        "-----  ----------",
        "wider  1",
        "x      None",
    ]


def test_text_table_without_rows_is_its_head():
    assert text_table(["a", "b"], []) == "a  b\n-  -"


def test_markdown_escapes_pipes():
    assert markdown_table(["a", "b"], [["x|y", 2]]).splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y | 2 |"]
