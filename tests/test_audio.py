"""Lesson 09's ear: log-mel spectrograms equal to transformers', the tower, and recordings from every place."""

import io
import math
import wave

import numpy as np
import pytest
import torch
from parity import agree, in_float64

from lessons import compat, data
from lessons.data import hub, tables
from lessons.data.scenes import render
from lessons.errors import DataError, SettingError
from lessons.nets.audio import LogMel, SoundTower, mel_filters, to_hertz, to_mel

compat.import_torchvision()
from transformers import audio_utils  # noqa: E402


def tone(frequency: float, rate: int = 8000, seconds: float = 0.6) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(round(rate * seconds)) / rate)[None]


# Log-mel, held to transformers


@in_float64
@pytest.mark.parametrize("bands, size, rate, low, high", [(64, 512, 8000, 60.0, None), (40, 400, 16_000, 20.0, 7600.0)])
def test_filters_are_those_of_transformers(bands, size, rate, low, high):
    theirs = audio_utils.mel_filter_bank(
        size // 2 + 1, bands, low, high or rate / 2, rate, norm=None, mel_scale="htk", triangularize_in_mel_space=False
    )
    ours = mel_filters(bands, size, rate, low, high)
    agree(ours, torch.from_numpy(theirs))


@pytest.fixture(scope="module")
def scenes():
    return render("pairs", 3, seed=2, size=8)


@in_float64
@pytest.mark.parametrize("rate, size, hop, bands", [(8000, 512, 170, 64), (16_000, 400, 160, 32), (8000, 256, 99, 16)])
def test_spectrogram_is_that_of_transformers(scenes, rate, size, hop, bands):
    waves = scenes.sounds(rate=rate).double()
    ear = LogMel(rate=rate, size=size, hop=hop, bands=bands)
    ours = ear(waves)
    assert ours.shape == (3, bands, 1 + waves.shape[1] // hop) and ours.dtype == torch.float64
    for row, sound in zip(ours, waves, strict=True):
        theirs = audio_utils.spectrogram(
            sound.numpy(), audio_utils.window_function(size, "hann"), size, hop, power=2.0,
            mel_filters=ear.filters.numpy(), mel_floor=ear.floor, log_mel="log", dtype=np.float64,
        )  # fmt: skip
        agree(row, torch.from_numpy(theirs), rtol=0, atol=2e-5)  # it keeps the Fourier transform in complex64


def test_mel_and_hertz_are_inverse_and_1000_hz_is_about_1000_mel():
    hertz = torch.linspace(0, 8000, 50, dtype=torch.float64)
    torch.testing.assert_close(to_hertz(to_mel(hertz)), hertz)
    assert to_mel(torch.tensor(1000.0)).item() == pytest.approx(1000, abs=0.1)


@pytest.mark.parametrize("frequency", [220.0, 700.0, 1690.0, 3000.0])
def test_a_pure_tone_peaks_in_the_band_around_it(frequency):
    ear = LogMel()
    band = ear(tone(frequency))[0].mean(1).argmax().item()
    corners = to_hertz(torch.linspace(*to_mel(torch.tensor([60.0, 4000.0])).tolist(), 66))
    assert corners[band] < frequency < corners[band + 2]


def test_silence_has_a_logarithm_and_loudness_adds_to_it():
    ear = LogMel()
    torch.testing.assert_close(ear(torch.zeros(1, 2000)), torch.full((1, 64, 12), math.log(ear.floor)))
    quiet, loud = ear(0.1 * tone(700)), ear(tone(700))
    heard = quiet > math.log(ear.floor) + 6
    torch.testing.assert_close((loud - quiet)[heard], torch.full((int(heard.sum()),), math.log(100)), atol=0.05, rtol=0)


def test_what_cannot_be_heard_is_said():
    with pytest.raises(SettingError, match="more than 256"):
        LogMel()(torch.zeros(1, 200))
    with pytest.raises(SettingError, match="fewer bands"):
        mel_filters(200, 256, 8000)
    for low, high in ((-1.0, None), (500.0, 400.0), (0.0, 5000.0)):
        with pytest.raises(SettingError, match="low < high"):
            mel_filters(16, 512, 8000, low, high)


# The tower


def test_tower_gives_unit_vectors_for_any_length_and_learns():
    torch.manual_seed(0)
    net = SoundTower(bands=32, width=4, out=12)
    for frames in (16, 49, 95):
        z = net(torch.randn(5, 32, frames))
        assert z.shape == (5, 12)
        torch.testing.assert_close(z.norm(dim=1), torch.ones(5))
    (z @ torch.randn(12)).sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == ["log_scale"], "the scale belongs to the loss, all else learns"
    with pytest.raises(SettingError, match="multiple of 16"):
        SoundTower(bands=40)


def test_tower_hears_pitch_but_not_when():
    """A pattern later in time is the same to mean and maximum over time, one band higher is not."""
    torch.manual_seed(0)
    net = SoundTower(bands=32, width=4).eval()
    x = torch.full((1, 32, 96), -10.0)
    x[:, 8:12, 32:40] = 4.0
    assert torch.allclose(net(x), net(x.roll(16, 2)), atol=1e-4)
    assert not torch.allclose(net(x), net(x.roll(8, 1)), atol=1e-3)


# Recordings: scenes as a stand-in, ESC-50 as the hub would give it


def test_scenes_stand_in_for_recordings_where_that_is_allowed(capsys):
    splits = data.recordings(source="scenes", train=4, val=2, test=3)
    assert [len(part) for part in splits] == [4, 2, 3] and splits.train.name == "scenes"
    assert splits.train.waves.shape == (4, 32_000) and "ring" in splits.train.classes
    assert not splits.train.waves[:, int(splits.train.lengths[0]) :].any()
    again = data.recordings(source="auto", train=4, val=2, test=3)
    assert torch.equal(again.train.waves, splits.train.waves) and "built-in scenes" in capsys.readouterr().err
    with pytest.raises(DataError, match="HF_HUB_OFFLINE"):
        data.recordings("esc50")
    with pytest.raises(SettingError, match="sounds, esc50"):
        data.recordings("cifar10")


def recording(rate: int, loud_at: float, seconds: float = 5.0, channels: int = 1, bits: int = 16) -> bytes:
    """A WAV file, silent but for a second of tone."""
    time = np.arange(round(rate * seconds)) / rate
    x = np.sin(2 * np.pi * 500 * time) * (abs(time - loud_at - 0.5) < 0.5) * 0.3
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, bits // 8, rate, len(x), "NONE", ""))
        samples = (x * 32767).astype("<i2") if bits == 16 else (x * 100 + 128).astype(np.uint8)
        file.writeframes(np.repeat(samples, channels).tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("rate, channels", [(44_100, 1), (22_050, 2), (16_000, 1)])
def test_clips_become_two_seconds_at_16_khz_around_what_is_loud(rate, channels):
    with wave.open(io.BytesIO(tables.short_clip(recording(rate, 2.5, channels=channels), "a clip"))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        x = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert len(x) == 32_000 and abs(x).max() == pytest.approx(0.9, abs=0.01)
    assert (abs(x) > 0.1).sum() == pytest.approx(16_000 * 0.93, rel=0.05), "the whole second of tone is in it"
    power = np.abs(np.fft.rfft(x)) ** 2
    assert np.argmax(power) / 2 == pytest.approx(500, abs=2), "still the same pitch"


def test_a_short_clip_stays_short_and_a_damaged_one_is_named():
    with wave.open(io.BytesIO(tables.short_clip(recording(16_000, 0.0, seconds=1.0), "a clip"))) as file:
        assert file.getnframes() == 16_000
    with pytest.raises(DataError, match="Clip 7 is damaged"):
        tables.short_clip(b"fLaC something else", "Clip 7")
    with pytest.raises(DataError, match="8 bit.*Expected 16 bit"):
        tables.short_clip(recording(16_000, 0.0, bits=8), "Clip 7")


def esc50(columns=("filename", "fold", "category", "audio")):
    """Ten clips in the column layout of ashraq/esc50; two per fold."""
    import datasets

    categories = ["dog", "chirping_birds", "sea_waves", "dog", "chirping_birds"] * 2
    values = {
        "filename": [f"{1 + i // 2}-{i}.wav" for i in range(10)],
        "fold": [1 + i // 2 for i in range(10)],
        "category": categories,
        "audio": [{"bytes": recording(44_100, 1.0), "path": None} for _ in range(10)],
    }
    made = datasets.Dataset.from_dict({key: values[key] for key in columns})
    return datasets.DatasetDict(train=made.cast_column("audio", datasets.Audio()))  # decodes on access, as on the hub


def test_esc50_from_the_hub_then_from_the_cache(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(hub, "load_dataset", lambda repo, **options: asked.append(repo) or esc50())
    monkeypatch.setattr(hub, "unreachable", lambda repos, again=False: None)
    splits = data.recordings("esc50", val=2)
    assert asked == ["ashraq/esc50"] and [len(part) for part in splits] == [6, 2, 2]
    assert splits.train.classes == ("bird", "dog", "sea waves"), "names as other sets spell them"
    assert sorted(splits.test.ids) == ["5-8.wav", "5-9.wav"], "the last fold is the test part"
    assert "CC BY-NC" in splits.train.name and splits.train.source == "hub"
    assert "CC BY-NC" in capsys.readouterr().err
    assert splits.train.waves.shape == (6, 32_000) and splits.train.waves.abs().max() == pytest.approx(0.9, abs=0.01)
    again = data.recordings("esc50", val=2)
    assert again.train.source == "cache" and asked == ["ashraq/esc50"]
    assert torch.equal(again.train.waves, splits.train.waves)


def test_other_columns_are_said_clearly(monkeypatch):
    monkeypatch.setattr(hub, "load_dataset", lambda repo, **options: esc50(("filename", "category", "audio")))
    monkeypatch.setattr(hub, "unreachable", lambda repos, again=False: None)
    with pytest.raises(DataError, match="Expected: filename, fold, category, audio.*Missing: fold"):
        data.recordings("esc50")
