"""Samples written as files and read back: the same texts, percepts and grades, in both forms."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from percasym import metrics
from percasym.cli import main as cli
from percasym.config.schema import ConfigError
from percasym.data.export import export
from percasym.spans.grammar import Grammar
from percasym.tasks.base import Task
from percasym.tasks.given.task import Given
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Completion, Grade, Rollout, Sample, SampleKey

TASKS = [Sudoku(verbosity=1), GraphColoring()]
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def samples_of(task: Task, split: str, num: int) -> list[Sample]:
    return [task.sample(SampleKey(task=task.name, split=split, seed=0, index=index)) for index in range(num)]


def same_sample(one: Sample, other: Sample) -> bool:
    parts = [(s.prompt.image, s.prompt.question, s.truth, s.solution, s.demonstration) for s in (one, other)]
    return parts[0] == parts[1]


def read_back(given: Given) -> Iterator[Sample]:
    """Every row once."""
    for split, items in given.table.items.items():
        for index in range(len(items)):
            yield given.sample(SampleKey(task="given", split=split, seed=0, index=index))


def graded(task: Task, sample: Sample, text: str) -> Grade:
    completion = Completion(ids=(), logprobs=None, finished=True)
    return metrics.grade(
        task, sample.truth, Rollout(prompt=sample.prompt, completion=completion, response=Grammar().read(text.encode()), labels=())
    )


@each_task
def test_what_is_exported_comes_back_with_the_same_texts_and_percepts(task: Task, tmp_path: Path) -> None:
    path = export(task, split="train_sft", seed=0, num=12, out=tmp_path, format="jsonl")
    made, read = samples_of(task, "train_sft", 12), list(read_back(Given(path=str(path))))
    assert len(read) == 12
    assert all(any(same_sample(one, other) for other in read) for one in made)
    assert all(Given(path=str(path)).parse(sample.truth) == sample.truth for sample in made)


@each_task
def test_demonstrations_and_slips_are_graded_alike(task: Task, tmp_path: Path) -> None:
    given = Given(path=str(export(task, split="train_sft", seed=0, num=4, out=tmp_path, format="jsonl")))
    for read in read_back(given):
        made = next(sample for sample in samples_of(task, "train_sft", 4) if same_sample(sample, read))
        whole = made.demonstration.perception + made.demonstration.reasoning
        slip = Grammar().perception("nonsense") + made.demonstration.reasoning
        wrong = made.demonstration.perception + " So <answer>nonsense</answer>"
        for text in (whole, wrong, "no tags at all"):
            own, theirs = graded(task, made, text), graded(given, read, text)
            assert (own.perception, own.outcome, own.faithful) == (theirs.perception, theirs.outcome, theirs.faithful)
        assert not graded(given, read, slip).perception
        assert graded(given, read, whole).perception_graded == 1


@each_task
def test_the_form_of_the_released_sets_comes_back_split_by_split(task: Task, tmp_path: Path) -> None:
    for split, num in (("train_sft", 3), ("train_rl", 2), ("test", 2)):
        path = export(task, split=split, seed=0, num=num, out=tmp_path, format="hub")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert {tuple(row) for row in rows} == {("image", "query", "ground_truth", "response")}
        assert all((row["response"] != "") == (split == "train_sft") for row in rows)
    given = Given(path=str(tmp_path), format="hub")
    assert given.about()["rows"] == {"train_sft": 3, "train_rl": 2, "test": 2}
    for split, num in (("train_sft", 3), ("test", 2)):
        read = [given.sample(SampleKey(task="given", split=split, seed=0, index=index)) for index in range(num)]
        made = samples_of(task, split, num)
        assert sorted(s.truth for s in read) == sorted(s.truth for s in made)
        assert sorted(s.solution for s in read) == sorted(s.solution for s in made)
    assert all(any(same_sample(one, other) for other in read_back(given)) for one in samples_of(task, "train_sft", 3))


@each_task
def test_the_form_of_chat_files_comes_back_with_the_same_texts(task: Task, tmp_path: Path) -> None:
    path = export(task, split="train_sft", seed=0, num=6, out=tmp_path, format="messages")
    made, given = samples_of(task, "train_sft", 6), Given(path=str(path))
    assert all(any(same_sample(one, other) for other in read_back(given)) for one in made)
    assert given.about()["notes"] == [
        "6 questions had a placeholder <image>, or a picture after the text: the picture now stands before the question."
    ]


def test_chat_rows_have_the_documented_form_of_llama_factory_and_ms_swift(tmp_path: Path) -> None:
    """LLaMA-Factory, data/README.md, "Sharegpt Format" with images; ms-swift, "Custom Dataset", standard multimodal format."""
    for split, num in (("train_sft", 3), ("test", 2)):
        export(TASKS[0], split=split, seed=0, num=num, out=tmp_path, format="messages")
    for row in map(json.loads, (tmp_path / "train_sft.jsonl").read_text().splitlines()):
        assert set(row) == {"messages", "images"}
        assert [set(turn) for turn in row["messages"]] == [{"role", "content"}] * 2
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
        # As many placeholders as pictures; a path relative to the file, which is `media_dir` by default there.
        assert sum(turn["content"].count("<image>") for turn in row["messages"]) == len(row["images"]) == 1
        assert (tmp_path / row["images"][0]).is_file()
    known = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(known) == {"percasym_train_sft", "percasym_test"}
    entry = known["percasym_train_sft"]
    assert (entry["file_name"], entry["formatting"]) == ("train_sft.jsonl", "sharegpt")
    assert entry["columns"] == {"messages": "messages", "images": "images"}
    assert entry["tags"] == {
        "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system",
    }  # fmt: skip


def test_llama_factory_itself_converts_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("torchaudio") is None:  # It imports that for sounds, which these rows have not.
        (tmp_path / "stub").mkdir()
        (tmp_path / "stub" / "torchaudio.py").write_text('__version__ = "0"\n')
        monkeypatch.syspath_prepend(tmp_path / "stub")
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    parser = pytest.importorskip("llamafactory.data.parser", reason="pip install --no-deps llamafactory, in an environment of its own")
    from llamafactory.data.converter import SharegptDatasetConverter

    export(TASKS[0], split="train_sft", seed=0, num=2, out=tmp_path, format="messages")
    (attributes,) = parser.get_dataset_list(["percasym_train_sft"], str(tmp_path))
    arguments: Any = ModuleType("arguments")
    arguments.media_dir = str(tmp_path)
    convert = SharegptDatasetConverter(attributes, arguments)
    for line, sample in zip((tmp_path / "train_sft.jsonl").read_text().splitlines(), samples_of(TASKS[0], "train_sft", 2), strict=True):
        found, own = convert(json.loads(line)), sample.demonstration
        assert found["_prompt"] == [{"role": "user", "content": f"<image>{sample.prompt.question}"}]
        assert found["_response"] == [{"role": "assistant", "content": own.perception + own.reasoning}]
        assert Path(found["_images"][0]).read_bytes() == sample.prompt.image


def test_ms_swift_itself_converts_the_rows(tmp_path: Path) -> None:
    preprocessor = pytest.importorskip("swift.dataset.preprocessor", reason="pip install ms-swift, in an environment of its own")
    export(TASKS[0], split="train_sft", seed=0, num=2, out=tmp_path, format="messages")
    (line, _) = (tmp_path / "train_sft.jsonl").read_text().splitlines()
    found = preprocessor.MessagesPreprocessor().preprocess(json.loads(line))
    assert found["messages"] == json.loads(line)["messages"]


def test_a_register_of_others_is_kept_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    export(TASKS[0], split="test", seed=0, num=1, out=tmp_path, format="messages")
    assert json.loads((tmp_path / "dataset_info.json").read_text())["mine"] == {"file_name": "mine.json"}
    (tmp_path / "dataset_info.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"dataset_info.json is no JSON object. Move it, or give --out another folder."):
        export(TASKS[0], split="train_rl", seed=0, num=1, out=tmp_path, format="messages")
    assert not (tmp_path / "train_rl.jsonl").exists()


def released_rows(tmp_path: Path, **splits: list[dict[str, Any]]) -> str:
    from PIL import Image

    for split, rows in splits.items():
        lines = []
        for number, row in enumerate(rows):
            Image.new("RGB", (8, 8), (number, len(split), 0)).save(tmp_path / f"{split}{number}.png")
            lines.append(json.dumps({"image": f"{split}{number}.png", "query": "Solve it."} | row) + "\n")
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    return str(tmp_path)


def test_percept_and_answer_are_found_by_the_users_own_patterns(tmp_path: Path) -> None:
    path = released_rows(
        tmp_path,
        train_sft=[{"ground_truth": "puzzle: 12\nsolution: 21", "response": "I see 12. ### Thus 21."}],
        test=[{"ground_truth": "puzzle: 34\nsolution: 43", "response": ""}],
    )
    patterns = {"boundary": r"\. ###", "ground_truth": r"puzzle: (?P<percept>.*)\nsolution: (?P<answer>.*)"}
    given = Given(path=path, format="hub", **patterns)
    trained, tested = (given.sample(SampleKey(task="given", split=split, seed=0, index=0)) for split in ("train_sft", "test"))
    assert (trained.truth, trained.solution, tested.truth, tested.solution) == ("I see 12", "21", "34", "43")
    assert trained.demonstration.reasoning == " Thus 21.<answer>21</answer>"


@pytest.mark.parametrize("response", ["", "I see 34. ### Thus 43."])
@pytest.mark.parametrize(("pattern", "part"), [("(?P<percept>)", "percept"), (r"(?P<percept>\d*)x?(?P<answer>\s*)", "answer")])
def test_a_ground_truth_that_matches_an_empty_part_is_refused(tmp_path: Path, response: str, pattern: str, part: str) -> None:
    path = released_rows(tmp_path, test=[{"ground_truth": "34", "response": response}])
    with pytest.raises(ValueError, match=rf"test.jsonl, line 1: task.ground_truth='.*' finds an empty {part} in its ground_truth: '34'\."):
        assert Given(path=path, format="hub", ground_truth=pattern, boundary=r"\. ###").table


def test_a_ground_truth_without_percept_cannot_stand_alone(tmp_path: Path) -> None:
    path = released_rows(tmp_path, test=[{"ground_truth": "43", "response": ""}])
    with pytest.raises(
        ValueError, match=r"test.jsonl, line 1: its response is empty and its ground_truth names no percept. Set task.ground"
    ):
        assert Given(path=path, format="hub").table


def test_a_picture_and_question_of_two_splits_is_refused(tmp_path: Path) -> None:
    row = {"image": "test0.png", "ground_truth": "<perception>1</perception><answer>2</answer>", "response": ""}
    path = released_rows(tmp_path, train_rl=[row], test=[row])
    with pytest.raises(ValueError, match=r"test.jsonl, line 1: its picture and question stand in split train_rl too."):
        assert Given(path=path, format="hub").table


def test_without_the_package_datasets_a_hub_id_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"anything else needs the package datasets: pip install 'percasym\[hub\]'"):
        assert Given(path="someone/some_set", format="hub").table


def test_what_the_package_datasets_loads_is_read_with_its_pictures_still_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    class Rows(list):
        def cast_column(self, name: str, feature: object) -> Rows:
            assert (name, feature) == ("image", "encoded")
            picture = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
            return Rows({**row, "image": picture} for row in self)

    stand_in: Any = ModuleType("datasets")
    stand_in.Image = lambda decode: "encoded" if decode is False else "decoded"
    row = {"query": "?", "ground_truth": "<perception>1</perception><answer>2</answer>", "response": None}
    stand_in.load_dataset = lambda path: {"test": Rows([row]), "another": Rows([row])}
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    given = Given(path="someone/some_set", format="hub")
    assert given.about()["rows"] == {"train_sft": 0, "train_rl": 0, "test": 1}
    assert given.sample(SampleKey(task="given", split="test", seed=0, index=0)).truth == "1"


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    export(Sudoku(), split="test", seed=0, num=1, out=tmp_path, format="jsonl")
    with pytest.raises(ConfigError, match=r"test.jsonl exists. Give --out another folder, or remove it."):
        export(Sudoku(), split="test", seed=0, num=1, out=tmp_path, format="hub")
    with pytest.raises(ConfigError, match="--num must be at least 1, got 0"):
        export(Sudoku(), split="test", seed=0, num=0, out=tmp_path / "b", format="jsonl")


def test_the_command_says_how_to_read_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "mine"
    assert cli.main(["export", "task=sudoku", "--num", "2", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"2 rows in {out}/train_sft.jsonl: percasym audit task=jsonl task.path={out}/train_sft.jsonl\n"
    assert len(list((out / "images").iterdir())) == 2
    assert cli.main(["export", "task=sudoko", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("There is no task=sudoko; did you mean task=sudoku?")
