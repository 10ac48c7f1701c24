import dataclasses
import io

from rich.console import Console

from reports._results import Results
from reports.terminal import terminal_report


def printed(results, width=160):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(terminal_report(results))
    return stream.getvalue()


def test_every_method_has_a_row_with_its_means_and_the_counts_stand_above(results_file):
    results = Results.read(results_file())
    text = printed(results)
    accuracy = results.rows.query("method == 'imp' and sparsity == 0.95 and requested")["test_accuracy"]
    row = next(line for line in text.splitlines() if line.strip().startswith("IMP"))
    assert f" {100 * accuracy.mean():.1f}±" in row
    assert row.count("±") == 6  # its dense network and five sparsities
    counts = next(line for line in text.splitlines() if "mlp-digits: kept" in line)
    assert counts.split()[-6:] == ["6,464", "1,293", "646", "323", "129", "65"]


def test_the_answer_and_the_limits_are_told_below(results_file):
    text = " ".join(printed(Results.read(results_file())).split())
    assert "IMP keeps its accuracy" in text
    assert "Predicted sparsity limit" in text


def test_a_usual_study_fits_eighty_columns_without_breaking_a_line(results_file):
    results = Results.read(results_file(sparsities=(0.8, 0.9, 0.95, 0.98)))
    rows = [line for line in printed(results, width=80).splitlines() if line.count("±") == 5]
    assert len(rows) == 6


def test_intervals_that_are_cut_take_no_more_room(results_file):
    results = Results.read(results_file(sparsities=(0.8, 0.9, 0.95, 0.98), seeds=(0, 1)))
    assert "…" not in printed(results, width=80)


def test_sentences_are_as_wide_as_the_terminal_however_narrow_the_table_is(results_file):
    lines = printed(Results.read(results_file(methods=("lomp",), sparsities=(0.8,), seeds=(0, 1))), width=100)
    told = [line for line in lines.splitlines() if "LOMP keeps its accuracy" in line]
    assert len(told[0]) > 80
    assert all(len(line) <= 100 for line in lines.splitlines())
    wide = printed(Results.read(results_file(methods=("lomp",), sparsities=(0.8,), seeds=(0, 1))), width=400)
    assert len(wide.splitlines()) < len(lines.splitlines())


def test_one_seed_prints_no_interval(results_file):
    text = printed(Results.read(results_file(seeds=(4,), analyses=False)))
    assert "±" not in text
    assert "test accuracy in %, one seed" in text


def test_an_interval_that_would_leave_the_scale_is_told_by_its_ends_below(results_file):
    results = Results.read(results_file(methods=("lomp",), seeds=(0, 1), sparsities=(0.9, 0.95), analyses=False))
    accuracies = {(0.9, 0): 0.99, (0.9, 1): 0.97, (0.95, 0): 0.5, (0.95, 1): 0.51}
    keys = zip(results.rows["sparsity"], results.rows["seed"], strict=True)
    rows = results.rows.assign(test_accuracy=[accuracies[key] for key in keys], dense_test_accuracy=0.98)
    lines = printed(dataclasses.replace(results, rows=rows), width=80).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("LOMP"))
    assert lines[first].split() == ["LOMP", "98.0±0.0", "98.0", "50.5±6.4"]
    assert lines[first + 1].split() == ["85.3–100"]


def test_markup_in_a_name_is_printed_and_not_obeyed(results_file):
    hostile = "[bold red]LOMP[/bold red] [link=http://example.org]x[/link]"
    results = Results.read(results_file(methods=("lomp",), labels={"lomp": hostile}, analyses=False))
    assert hostile in printed(results)


def test_a_result_that_is_not_there_is_a_dash(results_file):
    results = Results.read(results_file(methods=("lomp", "imp"), seeds=(0,), analyses=False))
    lost = (results.rows["method"] == "imp") & (results.rows["sparsity"] == 0.99)
    results = dataclasses.replace(results, rows=results.rows[~lost])
    line = next(line for line in printed(results).splitlines() if line.strip().startswith("IMP"))
    assert line.split()[-1] == "–"


def test_a_study_without_results_prints(results_file):
    text = printed(Results.read(results_file(methods=(), analyses=False)))
    assert "No pruned network has a result yet." in " ".join(text.split())
