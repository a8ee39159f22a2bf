from tensorflow_quantization.text.tables import html_summary, markdown_table, text_table


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


def test_html_escapes_names_and_leaves_out_an_empty_list():
    html = html_summary("<m>", ["a"], [["<script>"]], ["x & y"])
    assert html == (
        "<p>&lt;m&gt;</p><table><tr><th>a</th></tr><tr><td>&lt;script&gt;</td></tr></table><ol><li>x &amp; y</li></ol>"
    )
    assert "<ol>" not in html_summary("m", ["a"], [])
