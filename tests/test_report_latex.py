"""Formulas and light markup in what models write: converted where they can be, shown as they are where not."""

import xml.etree.ElementTree as ET

import pytest

from trl_math.reporting.page.latex import ATTRIBUTES, ELEMENTS, to_mathml
from trl_math.reporting.page.prose import answer_html, to_html


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (r"\frac{1}{2}", ["<mfrac>", "<mn>1</mn>", "<mn>2</mn>"]),
        (r"\boxed{\dfrac{3}{4}}", ['class="boxed"', "<mfrac>"]),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", ["<mtable>", "<mtr>", "<mn>4</mn>"]),
        (r"\begin{aligned} a &= b \\ &= c \end{aligned}", ["<mtable", "<mi>c</mi>"]),
        (r"\begin{cases} x & x > 0 \\ 0 \end{cases}", ["<mtable>", "{"]),
        (r"\sqrt[3]{x}", ["<mroot>"]),
        (r"\text{if } x < 3", ["<mtext>if\N{NO-BREAK SPACE}</mtext>", "<mo>&lt;</mo>"]),
        (r"\begin{gathered} a \\ b \end{gathered}", ["<mtable>"]),
        (r"x^2 + y_1^3", ["<msup>", "<msubsup>"]),
        (r"(-3)", ['<mo form="prefix">−</mo>']),
        (r"2 - 3", ["<mo>−</mo>"]),
        (r"\cancel{x}", ['class="struck"']),
        (r"50\%", ["%"]),
    ],
)
def test_formulas(source, parts):
    found = to_mathml(source)
    assert found is not None
    assert all(part in found for part in parts), found
    root = ET.fromstring(found)
    for element in root.iter():
        assert element.tag in ELEMENTS
        assert set(element.attrib) <= ATTRIBUTES | {"class"}


@pytest.mark.parametrize(
    "source",
    [
        "",
        r"\frac{1}",
        r"\left( x",
        r"x^",
        r"\unknown{x}",
        r"a & b",
        r"\begin{tikzpicture} x \end{tikzpicture}",
        r"\def\x{\x\x}\x",
        r"\newcommand{\a}{\b\b}\a",
        "{" * 1500 + "x" + "}" * 1500,
        "x" * 5000,
    ],
)
def test_what_cannot_be_converted(source):
    assert to_mathml(source) is None
    if source:
        shown = to_html(f"so ${source}$ is")
        assert shown.startswith("so ") and shown.endswith(" is") and "<math" not in shown


def test_links_and_colours_do_not_pass():
    found = to_mathml(r"\href{javascript:alert(1)}{x} \color{red}{y} \style{background:url(//x)}{z}")
    assert found is None or not any(word in found for word in ("javascript", "href", "style=", "url"))


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $7 today.",
        "pens for $3 each, a book for $7.50, paid $120",
        "from $5-$7 to $10,000",
        "US$5, A$6",
        "a lone $ sign, and $$ two",
        "$ x $ is spaced",
        "$5",
    ],
)
def test_money_is_not_mathematics(text):
    assert to_html(text) == text


@pytest.mark.parametrize(
    "text",
    [
        r"$x$",
        r"$$x$$",
        r"\(x\)",
        r"\[x\]",
        r"so \boxed{x}",
        r"\begin{align*} x &= 1 \end{align*}",
        "cost $5 if $x$ holds",
    ],
)
def test_delimiters(text):
    assert "<mi>x</mi>" in to_html(text)


def test_displayed_formulas_stand_apart():
    assert 'display="block"' in to_html("a\n\\[x\\]\nb")
    assert 'display="block"' in to_html("$$x$$")
    assert 'display="inline"' in to_html("$x$")


def test_light_markup():
    assert to_html("**Sum of $x$** and `a<b`").startswith("<strong>Sum of <math")
    assert "<code>a&lt;b</code>" in to_html("`a<b`")
    assert to_html("```python\nprint('$x$ < 2')\n```") == "<pre><code>print(&#x27;$x$ &lt; 2&#x27;)</code></pre>"
    assert to_html("### Step 1\nThen") == "<strong>Step 1</strong>\nThen"
    assert to_html("a * b * c") == "a * b * c"
    assert to_html("x = 1\ny = $2$", is_code=True) == "<pre><code>x = 1\ny = $2$</code></pre>"


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "a < b & c > d", "</div>", "\ue0000\ue001", "&lt;img&gt;"]
)
def test_text_is_escaped(text):
    assert "<" not in to_html(text)
    assert "<" not in answer_html(text, "text")
    assert ET.fromstring(f"<p>{to_html(text)}</p>").text == text.replace("\ue000", "\ufffd").replace(
        "\ue001", "\ufffd"
    )


def test_answers():
    assert "<mfrac>" in answer_html(r"\frac{1}{2}")
    assert answer_html("Tuesday afternoon", "text") == "Tuesday afternoon"
    assert "<mn>42</mn>" in answer_html("42")
    assert answer_html("B", "choice") == "B"


@pytest.mark.parametrize("unit", ["\\[", "\\(", "$a", "\\boxed{", "**", "`", "```", "\\begin{align}", "{", "$$", "#"])
def test_long_nonsense_ends(unit):
    """As long as a page shows of a completion; each pattern is bounded, so this is milliseconds."""
    text = unit * (6000 // len(unit))
    assert len(to_html(text)) >= len(text) // 3
