"""Verdicts computed from numbers, the record of a run, the table beside the reference runs."""

import json
import math

import pytest
import torch

import lessons
from lessons import claims
from lessons.claims import FAILS, HOLDS, UNCLEAR, UNJUDGED, Claims, share_error, verdict
from lessons.errors import SettingError, StorageError


@pytest.fixture
def table(monkeypatch):
    """An empty table of lesson 1 at cpu scale, with no reference runs in the package."""
    monkeypatch.setenv("LESSONS_SCALE", "cpu")
    monkeypatch.setenv("LESSONS_DATA", "scenes")
    monkeypatch.setattr(claims, "references", lambda lesson=None: [])
    return Claims(lessons.start(1), data="scenes")


def filled(table: Claims) -> Claims:
    table.add(
        "depth", "deeper is worse", paper="7.9 against 6.8 %", here="2.1 against 1.5", verdict=verdict([0.5, 0.6, 0.4])
    )
    table.add("exact", "starts as the identity", paper="-", here="equal to the bit", verdict=True)
    table.number("seconds", 12.3456789)
    return table


# Verdicts


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([0.5, 0.6, 0.4], HOLDS),
        ([-0.5, -0.6, -0.4], FAILS),
        ([0.5, -0.1, 0.2], UNCLEAR),
        ([0.0, 0.0, 0.0], UNCLEAR),
        ([1.0, 3.0], UNCLEAR),  # two seeds: t is 12.7
        ([1.0, 1.1], HOLDS),
        (torch.tensor([0.5, 0.6, 0.4]), HOLDS),
        ((0.5, 0.6, 0.4), HOLDS),
    ],
)
def test_verdict_of_several_seeds(effects, expected):
    assert verdict(effects) == expected


@pytest.mark.parametrize("effects", [[0.31, 0.52, 0.44], [1.0, 2.0], [5.0, 5.1, 4.9, 5.3, 5.2, 4.4, 4.6]])
def test_the_interval_is_that_of_students_t(effects):
    from scipy.stats import ttest_1samp

    low, high = ttest_1samp(effects, 0).confidence_interval(0.95)
    assert verdict(effects, at_least=low - 1e-6) == HOLDS
    assert verdict(effects, at_least=low + 1e-6) == UNCLEAR
    assert verdict(effects, at_least=high - 1e-6) == UNCLEAR
    assert verdict(effects, at_least=high + 1e-6) == FAILS


@pytest.mark.parametrize("effect", [0.3, [0.3], torch.tensor([0.3])])
def test_verdict_of_one_value_takes_two_standard_errors(effect):
    assert verdict(effect, error=0.149) == HOLDS
    assert verdict(effect, error=0.151) == UNCLEAR
    assert verdict(effect, error=0.049, at_least=0.4) == FAILS
    assert verdict(effect, error=0.051, at_least=0.4) == UNCLEAR
    assert verdict(effect, error=0.049, at_least=0.2) == HOLDS
    assert verdict(-1, error=0.1) == FAILS


@pytest.mark.parametrize("effect", [0.3, 1, [0.3]])
def test_one_value_without_an_error_is_refused(effect):
    with pytest.raises(SettingError, match="standard error"):
        verdict(effect)


def test_no_value_at_all_is_refused():
    with pytest.raises(SettingError, match="no values"):
        verdict([])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_too_small_to_tell(bad):
    assert verdict([0.5, bad, 0.4]) == UNCLEAR
    assert verdict(bad, error=0.1) == UNCLEAR
    assert verdict(0.3, error=math.nan) == UNCLEAR


def test_error_of_a_share():
    assert share_error(0.5, 100) == pytest.approx(0.05)
    assert share_error(0.9, 400) == pytest.approx(0.015)
    assert share_error(1.0, 100) == share_error(0.0, 100) == pytest.approx(0.01)  # never certain


# Rows and record


def test_rows_keep_what_was_said(table):
    first, second = filled(table).rows
    assert (first.key, first.paper, first.here, first.verdict) == (
        "depth",
        "7.9 against 6.8 %",
        "2.1 against 1.5",
        HOLDS,
    )
    assert second.verdict == HOLDS
    table.add("not", "is not", paper="", here="", verdict=False)
    assert table.rows[-1].verdict == FAILS


def test_adding_a_key_again_replaces_its_row_in_place(table):
    filled(table).add("depth", "deeper is worse", paper="as before", here="1.4 against 1.5", verdict=FAILS)
    assert [(row.key, row.here) for row in table.rows] == [("depth", "1.4 against 1.5"), ("exact", "equal to the bit")]
    assert table.rows[0].verdict == FAILS


@pytest.mark.parametrize("wrong", ["yes", "Holds", "", None, 1.0])
def test_a_verdict_that_does_not_exist(table, wrong):
    with pytest.raises(SettingError, match="too small to tell"):
        table.add("key", "claim", paper="", here="", verdict=wrong)
    assert not table.rows


def test_smoke_scale_judges_nothing(table):
    table.run.scale = "smoke"
    assert [row.verdict for row in filled(table).rows] == [UNJUDGED, UNJUDGED]
    with pytest.raises(SettingError):  # a slip is still a slip there
        table.add("key", "claim", paper="", here="", verdict="yes")


def test_the_record_is_complete_and_survives_json(table):
    record = filled(table).record()
    assert json.loads(json.dumps(record)) == record
    assert {key: record[key] for key in ("lesson", "scale", "data", "data_name", "device", "seed")} == {
        "lesson": 1,
        "scale": "cpu",
        "data": "scenes",
        "data_name": "scenes",
        "device": table.run.device.type,
        "seed": 0,
    }
    assert record["versions"]["torch"] == torch.__version__ and set(record["versions"]) == {
        "lessons",
        "torch",
        "python",
    }
    assert record["seconds"] >= 0 and record["hardware"]
    assert record["numbers"] == {"seconds": 12.345679}
    assert [set(row) for row in record["claims"]] == [{"key", "claim", "paper", "here", "verdict"}] * 2


def test_real_data_is_named_and_the_file_name_tells_runs_apart(table):
    real = Claims(table.run, data="CIFAR-10").record()
    assert (real["data"], real["data_name"]) == ("real", "CIFAR-10")
    assert claims.record_name(real) == f"01-cpu-real-{table.run.device.type}.json"
    assert claims.record_name(table.record()) == f"01-cpu-scenes-{table.run.device.type}.json"


def test_numbers_from_tensors_become_plain(table):
    table.number("accuracy", torch.tensor(0.5))
    assert json.dumps(table.record()["numbers"]) == '{"accuracy": 0.5}'


# Showing


def test_show_saves_the_record_where_a_headless_run_asks(table, tmp_path, monkeypatch):
    filled(table).show()
    assert not list(tmp_path.rglob("*.json"))
    monkeypatch.setenv("LESSONS_RESULTS", str(tmp_path / "build" / "results"))
    shown = table.show()
    (file,) = (tmp_path / "build" / "results").iterdir()
    assert file.name == claims.record_name(shown.record)
    assert json.loads(file.read_text(encoding="utf-8")) == shown.record


def test_a_folder_that_cannot_be_written_is_a_clear_error(table, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSONS_RESULTS", str(tmp_path / "file" / "results"))
    with pytest.raises(StorageError, match="results"):
        table.show()


def test_the_table_in_a_terminal_and_in_a_notebook(table):
    shown = filled(table).show()
    text, html = repr(shown), shown._repr_html_()
    for part in ("deeper is worse", "7.9 against 6.8 %", "✓ 2.1 against 1.5 (holds)", "here: cpu, scenes"):
        assert part in text and part in html
    assert html.count("<tr>") == 3 and html.count("<th ") == 3 and "reference" not in html
    assert max(map(len, text.splitlines())) <= 100


def test_html_escapes_what_it_is_given(table):
    table.add("key", "p < 0.05 & <script>alert(1)</script>", paper="a<b", here='"x" > y', verdict=True)
    html = table.show()._repr_html_()
    assert "<script" not in html and "a<b" not in html
    assert "p &lt; 0.05 &amp; &lt;script&gt;" in html and "a&lt;b" in html


def reference(table, **changes) -> dict:
    return filled(table).record() | {"hardware": "NVIDIA Test", "device": "cuda", "scale": "gpu"} | changes


def test_reference_runs_stand_beside_ours(table, monkeypatch):
    other = reference(table)
    other["claims"] = [other["claims"][0] | {"here": "0.2 against 0.1", "verdict": FAILS}]  # it lacks the second claim
    monkeypatch.setattr(claims, "references", lambda lesson=None: [other])
    shown = table.show()
    text, html = repr(shown), shown._repr_html_()
    assert html.count("<th ") == 4 and "reference: gpu, scenes, NVIDIA Test" in html and "✗ 0.2 against 0.1" in html
    assert html.count("<td ") == 8  # an empty cell where the reference run has no such claim
    assert text.count("reference: gpu, scenes, NVIDIA Test: ✗ 0.2 against 0.1") == 1


def test_our_own_kind_of_run_is_not_its_own_reference(table, monkeypatch):
    own = filled(table).record() | {"seconds": 1.0}
    monkeypatch.setattr(claims, "references", lambda lesson=None: [own, reference(table)])
    assert table.show()._repr_html_().count("reference:") == 1


def test_references_are_read_from_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(claims.resources, "files", lambda package: tmp_path)
    assert claims.references() == [] and claims.reference_times(1) == "No reference run is recorded yet."
    folder = tmp_path / "results"
    folder.mkdir()
    for name, lesson, seconds in (("02-a", 2, 60), ("01-b", 1, 90), ("01-a", 1, 150)):
        record = {"lesson": lesson, "seconds": seconds, "scale": "cpu", "data_name": "Szenen é", "hardware": name}
        (folder / f"{name}.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    (folder / "README.md").write_text("no record")
    assert [record["hardware"] for record in claims.references()] == ["01-a", "01-b", "02-a"]
    assert [record["hardware"] for record in claims.references(1)] == ["01-a", "01-b"]
    assert claims.reference_times(1).splitlines() == [
        "Took 2.5 minutes on cpu, Szenen é, 01-a.",
        "Took 1.5 minutes on cpu, Szenen é, 01-b.",
    ]


def test_the_records_of_the_package_are_whole():
    for record in claims.references():
        shown = claims.Table(record, [])
        assert shown._repr_html_().count("<tr>") == len(record["claims"]) + 1
        for row in record["claims"]:
            assert row["verdict"] in claims.MARKS
            # What is claimed of a GPU cannot be judged elsewhere; everything else a record has to judge.
            assert row["verdict"] != UNJUDGED or ("GPU" in row["claim"] and record["device"] == "cpu"), row
