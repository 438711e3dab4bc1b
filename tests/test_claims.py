import csv
import io
import json
import math
import re

import pytest
import yaml
from conftest import CLAIM

from companion.claims import Book, Claim, Rank, load_claims, needed
from companion.errors import UsageError
from companion.page.letters import lettered
from companion.scoreboard import downloads, scoreboard, summary
from companion.section import numbers
from companion.verdicts import counts, judge, measured

BASE = {
    "id": "one",
    "document": "one2020",
    "kind": "statement",
    "where": "Fig. 1",
    "statement": "The gain $|a|$ is large",
    "published": "> 1 dB",
    "notebook": "toy",
    "record": "x",
    "because": "seeds spread by 0.1 dB",
    "profiles": ["laptop"],
    "status": "reproduced",
}


def a_run(value=None, profile="laptop", unit="", interval=None, kept=None, **parameters):
    entry = {"value": value, "unit": unit, "better": ""}
    if interval is not None:
        entry["interval"] = interval
    run = {"notebook": "toy", "profile": profile, "parameters": parameters}
    run["records"] = {} if value is None else {"x": entry}
    run["provenance"] = {"device": "a cpu", "date": "2024-01-31T10:00"}
    return run | ({"kept": kept} if kept else {})


def judged(value, profile="laptop", unit="", interval=None, **changes):
    return judged_on([a_run(value, profile, unit, interval)], **changes)


def judged_on(runs, ranks=(), **changes):
    book = Book(claims=[Claim.model_validate({**BASE, **changes})], evidence={"toy": list(ranks)})
    return judge(book, runs)[0]


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
    assert (item.verdict, item.answers, item.broken) == ("not run", (), False)


def test_a_missing_record_breaks_the_claim():
    item = judged(None, at_least=1.0)
    assert item.broken
    assert "no record `x`" in item.answers[0].ours
    # one kept before the record was made says nothing
    assert judged_on([a_run(kept="old")], at_least=1.0).verdict == "not run"
    # and one with parameters of its own may leave it out
    assert judged_on([a_run() | {"partial": True}], at_least=1.0).verdict == "not run"
    assert judged_on([a_run() | {"partial": False}], at_least=1.0).broken


def test_differs_is_a_result_and_its_end_is_noticed():
    change = {"status": "differs", "explanation": "a coarser grid", "at_least": 1.0}
    change["cause"] = ["steps"]
    assert (judged(0.5, **change).broken, judged(0.5, **change).note) == (False, "")
    assert (judged(2.0, **change).broken, judged(2.0, **change).verdict) == (False, "reproduced")
    assert judged(2.0, **change).note == "marked differs, holds in this run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "exactly one of at_least"),
        ({"at_least": 1, "at_most": 2}, "exactly one of at_least"),
        ({"at_least": 1, "status": "differs"}, "needs explanation and cause"),
        ({"at_least": 1, "takes": "a GPU"}, "needs either a record or takes"),
        ({"at_least": 1, "status": "maybe"}, "status"),
        ({"at_least": 1, "profiles": []}, "needs profiles"),
        ({"at_least": 1, "because": None}, "needs because"),
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
    claims = load_claims(project.root).claims
    assert (needed(claims, "laptop"), needed(claims[:1], "smoke")) == (["toy"], [])


@pytest.mark.parametrize(
    ("interval", "bound", "verdict"),
    [
        ((1.1, 2.0), {"at_least": 1.0}, "reproduced"),
        ((1.0, 2.0), {"at_least": 1.0}, "reproduced"),
        ((0.9, 2.0), {"at_least": 1.0}, "undecided"),
        ((0.0, 0.9), {"at_least": 1.0}, "differs"),
        ((0.0, 0.9), {"at_most": 1.0}, "reproduced"),
        ((0.9, 1.1), {"at_most": 1.0}, "undecided"),
        ((1.1, 2.0), {"at_most": 1.0}, "differs"),
        ((0.9, 1.1), {"near": {"value": 1.0, "tolerance": 0.1}}, "reproduced"),
        ((0.8, 1.1), {"near": {"value": 1.0, "tolerance": 0.1}}, "undecided"),
        ((0.2, 2.0), {"near": {"value": 1.0, "tolerance": 0.1}}, "undecided"),
        ((1.2, 2.0), {"near": {"value": 1.0, "tolerance": 0.1}}, "differs"),
        ((0.0, math.inf), {"at_least": 1.0}, "undecided"),
    ],
)
def test_an_interval_that_holds_the_bound_decides_nothing(interval, bound, verdict):
    item = judged(sum(interval) / 2, interval=interval, kind="ordering", **bound)
    assert (item.verdict, item.broken) == (verdict, verdict == "differs")


def test_a_difference_between_methods_needs_an_interval():
    assert judged(2.0, kind="ordering", at_least=1.0).verdict == "undecided"
    assert judged(2.0, kind="statement", at_least=1.0).verdict == "reproduced"


NEAR = [
    Rank(grade="A", of="its images", when={"data": "paper", "size": [256, 512]}),
    Rank(grade="B", of="its images, smaller", when={"data": "paper"}),
    Rank(grade="C", of="others"),
]


@pytest.mark.parametrize(
    ("parameters", "grade"),
    [
        ({"data": "paper", "size": 512}, "A"),
        ({"data": "paper", "size": 128}, "B"),
        ({"data": "ours", "size": 256}, "C"),
        ({}, "C"),
    ],
)
def test_a_run_has_the_first_rank_that_it_meets(parameters, grade):
    (answer,) = judged_on([a_run(1.0, **parameters)], NEAR, at_least=0.0).answers
    assert answer.rank.grade == grade


def test_the_verdict_is_that_of_the_nearest_run():
    here = a_run(2.0, interval=(1.5, 2.5), data="ours")
    near = a_run(1.0, interval=(0.5, 1.5), kept="theirs", data="paper")
    item = judged_on([here, near], NEAR, at_least=1.0, kind="ordering")
    assert [a.verdict for a in item.answers] == ["undecided", "reproduced"]
    assert (item.verdict, item.broken) == ("undecided", False)
    assert judged_on([here], NEAR, at_least=1.0, kind="ordering").verdict == "reproduced"


@pytest.mark.parametrize(("met", "verdict"), [(True, "reproduced"), (False, "undecided")])
def test_what_a_comparison_rests_on_has_to_be_true_of_the_run(met, verdict):
    run = a_run(2.0, interval=(1.5, 2.5))
    run["records"]["solved"] = {"value": met}
    rests = dict(given="solved", at_least=1.0, kind="ordering")
    item = judged_on([run], **rests)
    assert item.verdict == verdict
    assert item.lacks == ("" if met else "solved")
    page = scoreboard([item], {"one2020": "A Toy Paper"}, "laptop")
    assert "Only a run in which `solved` is true decides." in page
    assert ("(without `solved`)" in page) is not met
    far = a_run(0.5, interval=(0.4, 0.6), data="ours")
    far["records"]["solved"] = {"value": True}
    both = judged_on([far, run], [Rank(grade="A", of="near", when={"data": None}), *NEAR], **rests)
    # what lacks it says nothing, and the next run decides
    assert (both.verdict, both.grade) == (("mixed", "A") if met else ("differs", "C"))
    del run["records"]["solved"]
    assert judged_on([run], given="solved", at_least=1.0).verdict == "undecided"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ((-3.55e-05, "dB", (-0.04575, 0.04568)), "0.0000 dB (-0.0457 to 0.0457)"),
        ((-14.23, "", (-53.07, 13.44)), "-14.2 (-53.1 to 13.4)"),
        ((1234.5, "s", (1000.0, 3000.0)), "1234 s (1000 to 3000)"),
        ((2.0, "", (2.0, 2.0)), "2 (2 to 2)"),
        ((math.inf, "dB", (5.0, math.inf)), "∞ dB (5 to ∞)"),
        ((30.0849, "dB"), "30.08 dB"),
        ((True,), "true"),
    ],
)
def test_a_value_has_the_digits_that_its_interval_allows(told, text):
    assert measured(*told) == text


def test_runs_that_say_the_opposite_are_mixed_and_need_a_reason():
    runs = a_run(2.0, data="ours"), a_run(0.0, kept="theirs", data="paper")
    item = judged_on(runs, NEAR, at_least=1.0)
    assert (item.verdict, item.broken) == ("mixed", True)
    assert item.note == "mixed, and no explanation is given"
    told = {"explanation": "other images", "cause": "not known"}
    item = judged_on(runs, NEAR, at_least=1.0, **told)
    assert (item.verdict, item.broken, item.note) == ("mixed", False, "")


def test_each_number_of_a_table_has_a_verdict(project):
    cells = {"under": ["table"], "where": "Table 1", "notebook": "toy"}
    theirs = {"table": {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0}}, "columns": {"x": {}, "y": {}}}
    project.write("book/published/one2020.yml", yaml.safe_dump(theirs))
    own = {**CLAIM, "published": {"cell": ["table", "b", "x"]}, "near": {"tolerance": 1.0}}
    for key in ("document", "at_most"):
        del own[key]
    out = cells | {"takes": "a GPU"}
    ours = cells | {"under": ["table", "a"], "record": "{0}_a", "tolerance": {"x": 0.1, "y": 0.2}}
    ours |= {"because": "a tenth", "profiles": ["laptop"], "words": {"x": "an x", "a": "of a"}}
    write = lambda **told: project.write("book/claims/one2020.yml", yaml.safe_dump(told))
    write(claims=[own], cells=[out, ours])
    first, *rest = load_claims(project.root).claims
    assert (first.id, first.near.value) == ("toy-eps", 3.0)
    assert [(c.id, c.record, c.near.value, c.near.tolerance) for c in rest] == [
        ("one2020-table-a-x", "x_a", 1.0, 0.1),
        ("one2020-table-a-y", "y_a", 2.0, 0.2),
    ]
    assert [c.statement for c in rest] == ["an x, of a", "y, of a"]
    write(claims=[], cells=[out])
    found = load_claims(project.root).claims
    assert [c.takes for c in found] == ["a GPU"] * 3
    page = scoreboard(judge(Book(claims=found), []), {"one2020": "A Toy Paper"}, "laptop")
    assert "::::{dropdown} Table 1: 3 not run\nIt takes a GPU\n" in page
    assert page.count('<a class="square not-run"') == page.count('data-verdict="not run"') == 3


def test_the_scoreboard_says_it_all():
    why = {"explanation": "a coarser\n  grid", "cause": ["steps"]}
    items = [
        judged(1.5, unit="dB", at_least=1.0, interval=(1.25, 1.75)),
        judged(0.5, at_least=1.0, status="differs", **why),
        judged(0.5, profile="paper", at_least=1.0),
        judged(0.5, at_least=0.0, kind="identity"),
        judged(0.5, at_least=0.0, kind="ours"),
    ]
    page = scoreboard(items, {"one2020": "A Toy Paper"}, "laptop")
    assert page.startswith("---\nhtml_theme.") and page.count('href="#scoreboard-one2020"') == 1
    assert "\n(scoreboard-one2020)=\n## A Toy Paper\n" in page
    head, *rows = page.split("\n* - ")[1:]
    assert head.split("\n  - ")[:3] == ["Where", "Verdict", "Statement"]
    assert rows[0].split("\n") == [
        '<span id="claim-one" data-document="one2020" data-kind="statement"'
        ' data-verdict="reproduced" data-grade="C"></span><a href="toy.html#claim-one">Fig. 1</a>'
        "<br><small>statement</small>",
        '  - <span class="verdict"><span class="square reproduced">✔</span> reproduced</span>',
        "  - <span>The gain $|a|$ is large</span>",
        *["    <details>", "    <summary>Bound ≥ 1</summary>", ""],
        *["    <span>seeds spread by 0.1 dB</span>", ""],
        *["    Claim `one`, record `x`.", "", "    </details>"],
        "  - <span>> 1 dB</span>",
        "  - <span>**C** ✔ 1.500 dB (1.250 to 1.750), this run</span>",
    ]
    assert "<summary>Bound ≥ 1; why it differs</summary>" in rows[1]
    assert "<span>a coarser grid</span> Shown by `steps`.\n" in rows[1]
    assert '<span class="square not-run">–</span>' in rows[2] and "Stated for: laptop." in rows[2]
    kinds = [row.split('data-kind="')[1].split('"')[0] for row in rows]
    assert kinds == ["statement", "statement", "statement", "identity", "ours"]
    squares = re.findall(r'<a class="square ([a-z-]*)" href="#claim-one" .*>(.)</a>', page)
    assert squares == [
        *[("reproduced", "✔"), ("differs", "✘"), ("not-run", "–")],
        *[("reproduced", "✔")] * 2,
    ]
    told = {"reproduced": 1, "differs": 1, "undecided": 0, "mixed": 0, "not run": 1}
    assert counts(items, ("statement",)) == told
    assert counts(items)["reproduced"] == 3
    assert summary(items, "laptop", "2024-01-31").startswith("Of 3 published numbers")
    with pytest.raises(UsageError, match="did you mean 'one2021'"):
        scoreboard(items, {"one2021": "Another"}, "laptop")


def test_names_of_greek_letters_are_letters_but_in_formulas_and_code():
    told = "lambda of OT_eps, `rho` and `-p eps 1`, rhombs, $\\lambda_eps$: alpha's"
    assert lettered(told) == "λ of OT_ε, `rho` and `-p eps 1`, rhombs, $\\lambda_eps$: α's"
    assert lettered("nothing to do") == "nothing to do"


def test_an_archived_run_leads_to_where_it_stands_beside_the_others():
    here = a_run(2.0, data="ours")
    near = a_run(2.0, kept="theirs", data="paper")
    item = judged_on([here, near], NEAR, at_least=1.0)
    page = scoreboard([item], {"one2020": "A Toy Paper"}, "laptop")
    (linked,) = re.findall(r'<a href="toy\.html#([^"]*)" title="(theirs[^"]*)">theirs</a>', page)
    assert f"## {linked[0].replace('-', ' ')}" in numbers([item], []).replace(",", "").lower()
    assert page.count(f"#{linked[0]}") == 1  # this run's answer is at the row's own link


def test_runs_whose_titles_begin_alike_are_numbered():
    runs = [a_run(2.0, kept=f"a former run, rho = {rho}", data="ours") for rho in (1, 2)]
    page = numbers([judged_on([*runs, a_run(2.0, data="ours")], NEAR, at_least=1.0)], [])
    assert "| C: a former run 1 | C: a former run 2 | C: this run |" in page
    assert "- **a former run 1**: rho = 1\n- **a former run 2**: rho = 2" in page


def test_identities_and_what_is_ours_stand_in_a_fold():
    ours = judged(1.5, at_least=1.0, kind="ours", id="toy-ours")
    page = numbers([judged(1.5, at_least=1.0), ours], [])
    open_, fold = page.split("::::{admonition} Identities, and what is said by us alone: 1\n")
    assert "#claim-one" in open_ and "#claim-toy-ours" not in open_ and "#claim-toy-ours" in fold
    assert numbers([ours], []).count(":::{table}") == 1


def test_a_claim_with_markup_in_it_stays_one_row_with_one_anchor():
    odd = {"id": 'a "b" <c>/-0.7%', "where": "<p> & co", "statement": "- # 1. x\n\n  > y"}
    page = scoreboard([judged(1.5, at_least=1.0, **odd)], {"one2020": "A <Toy> Paper"}, "laptop")
    address = "claim-a%20%22b%22%20%3Cc%3E/-0.7%25"
    assert '<span id="claim-a &quot;b&quot; &lt;c&gt;/-0.7%"' in page
    assert (
        f'<a href="toy.html#{address}">' in page and f'href="#{address}" aria-label="&lt;p' in page
    )
    assert "\n  - <span>- # 1. x > y</span>\n" in page
    assert '<option value="one2020">A &lt;Toy&gt; Paper</option>' in page


def test_the_claims_to_download_are_all_and_say_the_same():
    why = {"explanation": "a coarser\n  grid", "cause": ["steps", "size"]}
    items = [
        judged(math.inf, unit="dB", at_least=1.0, published=math.inf),
        judged(0.5, at_least=1.0, status="differs", **why),
        judged(0.5, profile="paper", at_least=1.0),
        judged_on([], record=None, because="", profiles=[], status=None, takes="a GPU"),
    ]
    found = downloads(items)
    entries = json.loads(found["claims.json"], parse_constant=pytest.fail)
    lines = list(csv.DictReader(io.StringIO(found["claims.csv"], newline="")))
    assert len(entries) == len(lines) == 4
    lists = ("cause", "runs")
    for entry, line, item in zip(entries, lines, items, strict=True):
        assert {k: v for k, v in entry.items() if k not in lists} == {
            k: v for k, v in line.items() if k not in lists
        }
        assert entry["verdict"] == item.verdict
    assert entries[0]["published"] == "∞" and entries[3]["takes"] == "a GPU"
    assert entries[1]["cause"] == ["steps", "size"] and lines[1]["cause"] == "steps; size"
    assert entries[1]["explanation"] == "a coarser grid"
    (run,) = entries[0]["runs"]
    assert (run["grade"], run["verdict"], run["ours"]) == ("C", "reproduced", "∞ dB")
    assert lines[0]["runs"] == "C reproduced: ∞ dB (this run, laptop, a cpu, 2024-01-31)"
    assert [entry["grade"] for entry in entries] == ["C", "C", "", ""]
    assert set(downloads([])) == set(found)
