"""The prior of photographs: trained, interrupted, kept and read."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from otlib import diffusion, metrics, operators, wiener
from otlib.assets import photographs, prior

KEPT = Path(__file__).parents[1] / "book" / "archive" / "prior-photographs"
WEIGHTS = "diffusion_pytorch_model.safetensors"
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
    with pytest.raises(ValueError, match=r"^out holds a training with .*'seed': 0.* got .*1") as no:
        prior.train([folder], tmp_path, **SMALL, seed=1)
    assert "\n" not in str(no.value)
    prior.train([folder], tmp_path, **SMALL)
    assert calls == [range(3), range(3, 4), range(3, 4)]
    whole, parts = (load_file(where / WEIGHTS) for where in (done[0], tmp_path))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


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
