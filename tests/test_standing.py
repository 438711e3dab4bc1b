"""How a document stands: what is counted, and a bar that says the same as the words below it."""

import re

from test_claims import a_run, judged_on

from companion.claims import Headline, Rank
from companion.standing import standing

NEAR = Rank(grade="A", of="its own images", when={"size": 256})


def items():
    far, near = a_run(2.0, size=64), a_run(0.5, size=256, kept="a big one")
    claim = dict(at_least=1.0, profiles=["laptop"])
    return [
        judged_on([far, near], [NEAR], **claim),  # mixed, the nearest is A
        judged_on([far], [NEAR], kind="number", **claim),
        judged_on([far], [NEAR], kind="ordering", **claim),  # undecided without an interval
        judged_on([], [NEAR], **claim),
        judged_on([far], [NEAR], kind="identity", **claim),
        judged_on([near], [NEAR], kind="ours", **claim),
        judged_on([near], [NEAR], document="two2021", **claim),
    ]


def test_a_bar_counts_what_its_words_say_identities_apart():
    text = standing(items(), "one2020")
    assert "nearest run: **A** 1, **C** 2." in text
    bar = r'<p>(\d+) ([^<]+)</p>\n<div aria-hidden="true">(.*)</div>\n<p>(.*)</p>'
    bars = re.findall(bar, text)
    assert [bar[:2] for bar in bars] == [
        ("4", "numbers, orderings and statements"),
        ("1", "identities"),
    ]
    drawn = [re.findall(r'square ([\w-]+)" style="flex-grow: (\d+)"', bar[2]) for bar in bars]
    words = [re.findall(r"</i> (\d+) ([\w ]+)</span>", bar[3]) for bar in bars]
    assert drawn[0] == [(kind, "1") for kind in ("reproduced", "undecided", "mixed", "not-run")]
    assert drawn[1] == [("reproduced", "1")]
    for pieces, told in zip(drawn, words, strict=True):
        assert pieces == [(kind.replace(" ", "-"), number) for number, kind in told]
    assert 'href="sections/scoreboard.html?document=one2020"' in text


def test_headlines_stand_first_with_the_verdicts_on_their_claims():
    told = [Headline(claim="one", says="a < b")]
    text = standing([judged_on([], at_least=1.0)], "one2020", told)
    sign = '<i class="square not-run">–</i> not run'
    row = f'<li><a href="sections/scoreboard.html#claim-one">{sign}</a>: a &lt; b</li>'
    assert text.startswith(f'<ul class="headlines">\n{row}\n</ul>\n\nClaims by')


def test_a_document_without_answers_has_a_bar_too():
    text = standing([judged_on([], at_least=1.0)], "one2020")
    assert "nearest run: none." in text and "identities" not in text
    assert '<i class="square not-run" style="flex-grow: 1"></i></div>' in text
