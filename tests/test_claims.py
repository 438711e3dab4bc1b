import math

import pytest

from companion.claims import Claim, counts, judge, load_claims, needed, scoreboard, summary
from companion.errors import UsageError

BASE = {
    "id": "one",
    "document": "one2020",
    "where": "Fig. 1",
    "statement": "The gain $|a|$ is large",
    "published": "> 1 dB",
    "notebook": "toy",
    "record": "x",
    "because": "seeds spread by 0.1 dB",
    "profiles": ["laptop"],
    "status": "reproduced",
}


def judged(value, profile="laptop", unit="", **changes):
    claim = Claim.model_validate({**BASE, **changes})
    records = {"toy": {"x": {"value": value, "unit": unit, "better": ""}}}
    return judge([claim], records, profile)[0]


@pytest.mark.parametrize(
    ("bound", "holds", "fails"),
    [
        ({"at_least": 1.0}, 1.0, 0.999),
        ({"at_most": 1.0}, 1.0, 1.001),
        ({"near": {"value": 30.1, "tolerance": 0.1}}, 30.2, 30.21),
        ({"near": {"value": 30.1, "tolerance": 0.1}}, 30.0, 29.99),
        ({"is": True}, True, False),
        ({"is": False}, False, True),
        ({"is": True}, True, 1),  # a number is no truth value
        ({"at_least": 0.0}, 0, True),
        ({"at_least": 30.0}, math.inf, -math.inf),
        ({"at_most": 30.0}, -math.inf, math.inf),
        ({"at_least": math.inf}, math.inf, 1e300),
        ({"near": {"value": math.inf, "tolerance": 0.1}}, math.inf, 1e300),
        ({"near": {"value": 1e300, "tolerance": 0.1}}, 1e300, math.inf),
    ],
)
def test_each_kind_of_bound(bound, holds, fails):
    assert judged(holds, **bound).verdict == "reproduced"
    assert judged(fails, **bound).verdict == "differs"
    assert not judged(holds, **bound).broken
    assert judged(fails, **bound).broken


def test_elsewhere_it_is_not_run():
    item = judged(0.0, profile="smoke", at_least=1.0)
    assert (item.verdict, item.ours, item.broken) == ("not run at this profile", "", False)


def test_a_missing_record_breaks_the_claim():
    item = judge([Claim.model_validate({**BASE, "at_least": 1.0})], {"toy": {}}, "laptop")[0]
    assert item.broken
    assert "no record `x`" in item.ours


def test_differs_is_a_result_and_its_end_is_noticed():
    change = {"status": "differs", "explanation": "a coarser grid", "at_least": 1.0}
    assert (judged(0.5, **change).broken, judged(0.5, **change).note) == (False, "")
    assert (judged(2.0, **change).broken, judged(2.0, **change).verdict) == (False, "reproduced")
    assert judged(2.0, **change).note == "marked differs, holds in this run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "exactly one of at_least"),
        ({"at_least": 1, "at_most": 2}, "exactly one of at_least"),
        ({"at_least": 1, "status": "differs"}, "needs an explanation"),
        ({"at_least": 1, "status": "maybe"}, "status"),
        ({"at_least": 1, "profiles": []}, "profiles"),
        ({"at_least": 1, "because": None}, "because"),
        ({"at_least": 1, "colour": "red"}, "colour"),
        ({"near": {"value": 1, "tolerance": -1}}, "near.tolerance"),
        ({"near": {"value": 1, "tolerance": math.inf}}, "near.tolerance"),
        ({"near": {"value": math.nan, "tolerance": 1}}, "near.value nan is no number"),
        ({"at_least": math.nan}, "at_least nan is no number"),
        ({"at_least": "1"}, "at_least"),  # a text is no number, a number no truth value
        ({"at_least": True}, "at_least"),
        ({"is": 1}, "is"),
        ({"at_least": 1, "id": 3}, "claim 3: id"),
        ({"at_least": 1, "notebook": "tou"}, "did you mean 'toy'"),
        ({"at_least": 1, "profiles": ["laptp"]}, "did you mean 'laptop'"),
    ],
)
def test_an_entry_that_is_no_claim_is_named(project, change, message):
    project.claims({"at_most": None, **change})
    with pytest.raises(UsageError, match=message) as caught:
        load_claims(project.root)
    assert repr(change.get("id", "toy-eps")) in str(caught.value)


def test_an_id_belongs_to_one_claim(project):
    project.claims({}, {})
    with pytest.raises(UsageError, match="'toy-eps' is used 2 times"):
        load_claims(project.root)


def test_only_the_profile_s_notebooks_are_needed(project):
    project.claims({"id": "a"}, {"id": "b", "profiles": ["smoke"]})
    claims = load_claims(project.root)
    assert (needed(claims, "laptop"), needed(claims[:1], "smoke")) == (["toy"], [])


def test_the_scoreboard_says_it_all():
    items = [
        judged(1.5, unit="dB", at_least=1.0),
        judged(0.5, at_least=1.0, status="differs", explanation="a coarser\n  grid"),
        judged(0.5, profile="paper", at_least=1.0),
    ]
    page = scoreboard(items, {"one2020": "A Toy Paper"}, "laptop")
    rows = [line for line in page.splitlines() if line.startswith("| {doc}")]
    assert rows[0] == (
        "| {doc}`Fig. 1 </sections/toy>` | The gain $\\|a\\|$ is large | > 1 dB | 1.5 dB "
        "| ≥ 1: seeds spread by 0.1 dB | ✔ reproduced |"
    )
    assert rows[1].endswith("| ✘ differs |")
    assert rows[2].endswith("| – not run at this profile |")
    assert "## A Toy Paper" in page
    assert "**Fig. 1: The gain $|a|$ is large.** a coarser grid" in " ".join(page.split())
    assert counts(items) == {"reproduced": 1, "differs": 1, "not run at this profile": 1}
    assert "reproduced: **1**" in summary(items, "laptop", "2024-01-31")
    with pytest.raises(UsageError, match="did you mean 'one2021'"):
        scoreboard(items, {"one2021": "Another"}, "laptop")
