"""The prior of photographs: trained, interrupted, kept and read."""

import functools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from otlib import diffusion, metrics, operators, wiener
from otlib.assets import _unfinished, photographs, prior

KEPT = Path(__file__).parents[1] / "book" / "archive" / "prior-photographs"
WEIGHTS, STATE = "diffusion_pytorch_model.safetensors", "training.safetensors"
SMALL = dict(steps=4, width=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photographs, and one too small to learn from."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, box in (("a", (0, 0, 150, 140)), ("b", (150, 0, 300, 140)), ("c", (0, 0, 40, 40))):
        Image.open(photographs.files()[1]).convert("RGB").crop(box).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "prior"
    told = prior.train([folder], out, **SMALL)
    return out, told


def test_photographs_at_two_sizes(folder):
    found, names = prior.photographs([folder])
    assert names == ["a.png", "b.png"]
    assert [tuple(x.shape) for x in found] == [(3, 140, 150), (3, 70, 75)] * 2
    assert all(x.min() >= 0 and x.max() <= 1 for x in found)


def test_a_training_is_read_as_it_was_written(done, folder):
    out, told = done
    found = prior.load(out)
    assert {file.name for file in out.iterdir()} == {
        *("config.json", "training.json", "gaussian.safetensors", WEIGHTS)
    }
    assert found.facts == {key: told[key] for key in found.facts}
    assert (found.facts["photographs"], found.facts["steps"]) == (2, 4)
    expected = load_file(out / WEIGHTS)
    assert {value.dtype for value in expected.values()} == {torch.float16}
    for name, value in found.net.state_dict().items():
        assert torch.equal(value, expected[name].float())
    fitted = wiener.fit(prior.photographs([folder])[0], 64)
    for one, two in zip(found.gaussian, fitted, strict=True):
        assert torch.equal(one, two)
    steps, levels = diffusion.descent(found.share, 2)
    assert found.level(steps[0]) == pytest.approx(levels[0], rel=1e-5)
    drawn = diffusion.draw(
        diffusion.predictor(found.net, steps, levels), levels, (3, 8, 16), torch.Generator()
    )
    assert drawn.shape == (3, 8, 16) and drawn.isfinite().all()


def test_an_interrupted_training_goes_on(done, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(prior, "_EVERY", 3)
    advance, calls = diffusion.advance, []

    def once(*args, **options):
        calls.append(options["steps"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return advance(*args, **options)

    monkeypatch.setattr(diffusion, "advance", once)
    with pytest.raises(KeyboardInterrupt):
        prior.train([folder], tmp_path, **SMALL)
    prior.train([folder], tmp_path, **SMALL)
    assert calls == [range(3), range(3, 4), range(3, 4)]
    assert_same_weights(tmp_path, done[0])


def killed(monkeypatch, call, at):
    """Call where the write, rename or removal of number `at` of files kills."""
    count = iter(range(at, -1, -1))

    def counted(function):
        def last(*args, **options):
            if next(count) == 0:
                raise KeyboardInterrupt
            return function(*args, **options)

        return last

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "write_text"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        for module in (prior, _unfinished):
            patch.setattr(module, "save_file", counted(module.save_file))
        try:
            call()
        except KeyboardInterrupt:
            return True
    return False


def assert_same_weights(one, other):
    one, other = (load_file(where / WEIGHTS) for where in (one, other))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_killed_at_any_write_goes_on(folder, tmp_path, monkeypatch):
    """Also over a finished one: what is loaded meanwhile is the old one or refused."""
    monkeypatch.setattr(prior, "_EVERY", 1)
    quick = functools.partial(diffusion.advance, sides=(8,), pixels=64)
    monkeypatch.setattr(diffusion, "advance", quick)
    old, new = tmp_path / "old", tmp_path / "new"
    prior.train([folder], old, steps=1, width=8, licence="old")
    train = lambda out: lambda: prior.train([folder], out, steps=2, width=8)
    train(new)()
    at = 0
    while killed(monkeypatch, train(out := shutil.copytree(old, tmp_path / str(at))), at):
        if (out / "training.json").exists():
            told = json.loads((out / "training.json").read_text())
            assert_same_weights(out, old if told["licence"] == "old" else new)
        assert train(out)()["done"] == 2
        assert_same_weights(out, new)
        assert {file.name for file in out.iterdir()} == {file.name for file in new.iterdir()}
        at += 1
    assert at >= 9  # state, aside and renamed, twice; removal, moments, facts, renamed, removal


@pytest.fixture(scope="module")
def interrupted(folder, tmp_path_factory):
    """A folder with the state of a training at step 2 of 4."""
    out = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior, "_EVERY", 2)
        advance = diffusion.advance

        def half(*args, steps, **options):
            if steps.start:
                raise KeyboardInterrupt
            return advance(*args, steps=steps, **options)

        patch.setattr(diffusion, "advance", half)
        with pytest.raises(KeyboardInterrupt):
            prior.train([folder], out, **SMALL)
    assert [file.name for file in out.iterdir()] == [STATE]
    return out


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (dict(lr=1e-3), r"lr was 0\.0005 in {out}, got 0\.001: "),
        (dict(licence="CC0"), r"licence was \"the user's\" in {out}, got 'CC0': "),
        (dict(steps=5, seed=1), r"steps was 4 in {out}, got 5; seed was 0 in {out}, got 1: "),
    ],
)
def test_other_settings_are_refused_by_name(interrupted, folder, other, match):
    with pytest.raises(ValueError, match="^" + match.format(out=interrupted)) as no:
        prior.train([folder], interrupted, **SMALL | other)
    assert str(no.value).endswith(f"delete {interrupted / STATE}")
    assert "\n" not in str(no.value)


def test_other_photographs_are_refused(interrupted, folder, tmp_path):
    """As many of the same names, one of other content; folders and names themselves may change."""
    moved, other = tmp_path / "moved", tmp_path / "other"
    for where in (moved, other):
        shutil.copytree(folder, where)
    Image.open(other / "a.png").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(other / "a.png")
    match = r"^photographs was '2 of SHA-256 \w+' in .*, got '2 of SHA-256 \w+': "
    with pytest.raises(ValueError, match=match):
        prior.train([other], interrupted, **SMALL)
    out = shutil.copytree(interrupted, tmp_path / "out")
    assert prior.train([moved], out, **SMALL)["done"] == 4


def test_a_damaged_state_is_refused(interrupted, folder, tmp_path):
    whole = (interrupted / STATE).read_bytes()
    tensors = load_file(interrupted / STATE)
    with safe_open(interrupted / STATE, framework="pt") as file:
        told = file.metadata()
    fewer = {name: value for name, value in tensors.items() if name != "net.conv_in.bias"}
    for content in (
        whole[:1000],
        b"",
        save(tensors),
        save(tensors, told | dict(reached="{")),
        save(tensors, told | dict(reached="{}")),
        save(fewer, told),
    ):
        (tmp_path / STATE).write_bytes(content)
        held = "must hold the state of an interrupted training, else delete it to begin anew: "
        with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path / STATE))} {held}") as no:
            prior.train([folder], tmp_path, **SMALL)
        assert "\n" not in str(no.value)


def test_what_is_told_of_a_former_training_is_not_read(interrupted, done, folder, tmp_path):
    shutil.copytree(interrupted, tmp_path / "out")
    (tmp_path / "out" / "training.json").write_text('{"steps": 4')
    told = prior.train([folder], tmp_path / "out", **SMALL)
    assert json.loads((tmp_path / "out" / "training.json").read_text()) == told
    assert told | dict(seconds=0, every=0, losses=0) == done[1] | dict(seconds=0, every=0, losses=0)


def test_photographs_too_small_for_the_gaussian_are_refused_before_the_training(
    folder, tmp_path, monkeypatch
):
    Image.open(folder / "a.png").crop((0, 0, 80, 80)).save(tmp_path / "a.png")
    monkeypatch.setattr(diffusion, "advance", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"^photographs must have sides >= 128 pixels"):
        prior.train([tmp_path], tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bad", "match"), [(dict(steps=0), "steps must be .*0"), (dict(seed=-1), "seed must be .*-1")]
)
def test_bad_numbers_are_refused(folder, tmp_path, bad, match):
    with pytest.raises(ValueError, match=f"^{match}"):
        prior.train([folder], tmp_path / "out", **SMALL | bad)


def test_the_command(folder, tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(prior, "train", lambda *args, **options: given.append((args, options)))
    call = ["prior", str(folder), "--out", "new", "--steps", "1", "--licence", "CC0"]
    monkeypatch.setattr(sys, "argv", call)
    prior._main()
    options = dict(steps=1, width=32, lr=5e-4, seed=0, licence="CC0")
    assert given == [(([str(folder)], "new"), options)]
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["prior", str(tmp_path), "--out", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        prior._main()
    told = capsys.readouterr().err.splitlines()[-1]
    assert "folders must hold photographs of >= 64 pixels" in told


def test_what_is_no_prior_is_refused(done, tmp_path):
    for file in done[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / WEIGHTS)
    del weights["conv_in.bias"]
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=rf"{WEIGHTS} must hold the weights of .*conv_in.bias"):
        prior.load(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        prior.load(tmp_path)


@pytest.mark.parametrize("name", ["in_channels", "out_channels"])
def test_a_grey_network_is_refused(done, tmp_path, name):
    """At once, not in its first convolution."""
    shutil.copytree(done[0], out := tmp_path / "grey")
    net = type(prior.network(8)).from_config(
        json.loads((out / "config.json").read_text()), **{name: 1}
    )
    net.half().save_pretrained(out)
    match = f"^{re.escape(str(out / 'config.json'))} must hold .* {name} must be 3.*, got 1$"
    with pytest.raises(ValueError, match=match):
        prior.load(out)


@pytest.mark.parametrize("file", ["config.json", "training.json", "gaussian.safetensors", WEIGHTS])
def test_a_damaged_file_is_told_in_one_line(done, tmp_path, file):
    shutil.copytree(done[0], out := tmp_path / "damaged")
    for content in (b"", (out / file).read_bytes()[:-5], b"3"):
        (out / file).write_bytes(content)
        with pytest.raises(ValueError, match=f"^{re.escape(str(out / file))} must hold ") as no:
            prior.load(out)
        assert "\n" not in str(no.value)


@pytest.mark.parametrize(("width", "match"), [(12, "a multiple of 8, got 12"), (0, "got 0")])
def test_bad_widths_are_refused(width, match):
    with pytest.raises(ValueError, match=f"^width must be .*{match}"):
        prior.network(width)


def test_the_kept_prior_takes_noise_away():
    """From a photograph that it never saw."""
    found = prior.load(KEPT)
    assert sum(file.stat().st_size for file in KEPT.iterdir()) <= 8e6
    step = min(range(len(found.share)), key=lambda k: abs(found.level(k) - 0.2))
    predict = diffusion.predictor(found.net, [step], [found.level(step)])
    image = photographs.sets(size=64, counts=(0, 0, 1)).test[0].image
    noisy = operators.gaussian_noise(image, found.level(step) / 2, torch.Generator().manual_seed(0))
    clean = (predict(2 * noisy - 1, 0) + 1) / 2
    assert metrics.psnr(clean, image) > metrics.psnr(noisy, image) + 3
