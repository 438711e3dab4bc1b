"""The workflows are YAML that says what it should: their commands are ones that exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from companion.cli import app

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path):
    content = yaml.safe_load(path.read_text())
    content["on"] = content.pop(True)  # YAML 1.1 reads the key `on` as a truth value
    return content


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_is_well_formed(path):
    workflow = read(path)
    assert set(workflow) <= {"name", "on", "permissions", "jobs"}
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
        # what a caller gives must not be read as shell
        assert "${{" not in step.get("run", "")
        run = step.get("run", "true")
        subprocess.run(["bash", "-n", "-c", run], check=True, cwd=ROOT)


def test_validation_can_be_called_by_a_fork_and_by_hand():
    workflow = read(ROOT / ".github/workflows/validate.yml")
    assert set(workflow["on"]) == {"workflow_call", "workflow_dispatch"}
    called, by_hand = (workflow["on"][how]["inputs"] for how in workflow["on"])
    assert called == by_hand
    named = set(re.findall(r"inputs\.(\w+)", (ROOT / ".github/workflows/validate.yml").read_text()))
    assert named == set(called)
    assert all(entry["type"] == "string" and "default" in entry for entry in called.values())
    kept = [step for step in steps(workflow) if "upload-artifact" in step.get("uses", "")]
    assert [step["if"] for step in kept] == ["always()"]


def test_what_is_published_was_judged_and_only_who_publishes_may_write():
    jobs = read(ROOT / ".github/workflows/publish.yml")["jobs"]
    runs = [step.get("run", step.get("uses", "")) for step in jobs["build"]["steps"]]
    what = ("companion build", "companion check")
    built, judged = (runs.index(next(run for run in runs if each in run)) for each in what)
    assert built < judged < runs.index("actions/upload-pages-artifact@v3")
    assert [job.get("needs") for job in jobs.values()] == [None, "build", "build"]
    assert "permissions" not in jobs["build"]
    assert jobs["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert jobs["release"]["permissions"] == {"contents": "write"}


@pytest.mark.parametrize("file", ["validate", "publish"])
def test_its_commands_and_options_exist(file):
    seen = []
    for step in steps(read(ROOT / f".github/workflows/{file}.yml")):
        for line in step.get("run", "").splitlines():
            words = shlex.split(re.sub(r"\$\{REFERENCE:\+(.*?)\}", r"\1", line), comments=True)
            if words[0].endswith("/companion"):
                options = {name for param in app.commands[words[1]].params for name in param.opts}
                assert {word for word in words if word.startswith("--")} <= options
                seen.append(words[1])
    assert seen == ["build", "check"]


@pytest.mark.parametrize(("reference", "words"), [("", 0), ("a folder", 2)])
def test_no_reference_gives_no_option(reference, words):
    script = 'printf "%s\\n" ${REFERENCE:+--reference "$REFERENCE"}'
    assert script.split(" ", 2)[2] in (ROOT / ".github/workflows/validate.yml").read_text()
    done = subprocess.run(
        ["bash", "-c", script], env={"REFERENCE": reference}, capture_output=True, text=True
    )
    assert len(done.stdout.split("\n")) - 1 == max(words, 1)
    assert done.stdout.split("\n")[:2] == (["--reference", "a folder"] if words else ["", ""])


def test_coverage_is_of_the_unit_tests_and_lands_on_the_run_s_page():
    workflow = read(ROOT / ".github/workflows/ci.yml")
    runs = [step["run"] for step in workflow["jobs"]["coverage"]["steps"] if "run" in step]
    tests, report = map(shlex.split, runs[-2:])
    assert tests[0] == ".venv/bin/pytest" and "--cov" in tests
    assert {"--ignore", "tests/test_site.py"} <= set(tests)  # needs the built book
    assert report[:2] == [".venv/bin/coverage", "report"]
    assert report[-2:] == [">>", "$GITHUB_STEP_SUMMARY"]


def test_pre_commit_calls_the_style_check_of_make_and_downloads_nothing():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    (hook,) = repo["hooks"]
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == (
        "make lint",
        "system",
        False,
    )
    makefile = (ROOT / "Makefile").read_text()
    assert "\nlint: " in makefile and "\ntest: lint\n" in makefile
    assert makefile.count("/ruff check .") == 1


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.md")))
def test_a_template_for_issues_has_its_head(path):
    _, head, body = path.read_text().split("---\n", 2)
    assert set(yaml.safe_load(head)) == {"name", "about", "labels"}
    for line in re.findall(r"companion (.*)", body):
        words = line.strip("`$ ").split()
        command = app.commands[words[0]]
        options = {name for param in command.params for name in param.opts}
        assert {word for word in words if word.startswith("-")} <= options


def test_the_template_on_claims_asks_for_the_report():
    assert "--html check.html" in (ROOT / ".github/ISSUE_TEMPLATE/claim.md").read_text()
