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


def test_its_commands_and_options_exist():
    seen = []
    for step in steps(read(ROOT / ".github/workflows/validate.yml")):
        for line in step.get("run", "").splitlines():
            words = shlex.split(re.sub(r"\$\{REFERENCE:\+(.*?)\}", r"\1", line))
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
