from lstm_onnx.parity.reports.markup import Markup, join, tag


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "<b>&'\"", tag("i", "x")) == "<p>&lt;b&gt;&amp;&#x27;&quot;<i>x</i></p>"
    assert join("<", Markup("<"), "&") == "&lt;<&amp;"
    assert isinstance(tag("p"), Markup)
    assert isinstance(join("a", "b"), Markup)


def test_attributes():
    made = tag("td", class_="a", data_label='"<&', viewBox="0 0 1 1", hidden=True, id=None, open=False, x=1)
    assert made == '<td class="a" data-label="&quot;&lt;&amp;" viewBox="0 0 1 1" hidden x="1"></td>'
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("meta", name="x") == '<meta name="x">'


def test_what_is_done_to_markup_makes_text_of_it():
    """So that markup put together by hand is seen, and is no way around the escaping."""
    assert tag("p", tag("i") + "<b>") == "<p>&lt;i&gt;&lt;/i&gt;&lt;b&gt;</p>"
    assert tag("p", f"{tag('i')}") == "<p>&lt;i&gt;&lt;/i&gt;</p>"
