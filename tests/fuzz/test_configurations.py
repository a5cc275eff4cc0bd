"""Configurations of any content: one sentence, or settings that stand for exactly what was asked."""

from __future__ import annotations

import copy
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from percasym.config.resolve import composed, rebuild
from percasym.config.schema import ConfigError, build, dump
from percasym.config.settings import DeepSpeedSettings, Evaluation, Launch
from percasym.launch.sweep.cells import expanded
from percasym.tasks.canvas import Look
from tests.fuzz.conftest import altered, cases, junk

CONF = Path(__file__).resolve().parents[2] / "conf"
RECORDS = [
    copy.deepcopy(dict(composed(words, CONF).record)) | {"run": {"overwrite": False, "keep_last": 2, "keep_best": False}}
    for words in (["balance=fixed"], ["task=graph_coloring", "balance=schedule", "engine=torch"], ["paradigm=rl", "model.lora.rank=8"])
]
SECTIONS = (Evaluation, Launch, DeepSpeedSettings, Look)
KEYS = (
    "task task.size task.givens task.look.noise balance balance.weight paradigm paradigm.steps paradigm.lr seed study plugins model.path "
    "engine.precision tracker launch.nproc reward hydra.run.dir taks +a ~seed"
)
VALUES = "sudoku none fixed rl 0 1 -1 0.5 nan inf 1e400 null true [1,2] {a:1} ${seed} ${a a,b range(3) ' [ os.system $(ls) %s ü ../x"
keys, values = (st.sampled_from(["", *words.split()]) | st.text(max_size=5) for words in (KEYS, VALUES))
words = st.tuples(keys, st.sampled_from(["=", "=", "=", "", "@", "=="]), values).map("".join)


@cases(cost=2)
@given(altered(RECORDS))
@example({**RECORDS[0], "plugins": [""], "task": {"_target_": ""}})
def test_a_record_becomes_the_settings_that_it_says(record: dict) -> None:
    try:
        settings = rebuild(record, path=Path("run"))
    except ConfigError:
        return
    assert rebuild(settings.record, path=Path("run")).record == settings.record, "the record of a run is a configuration"
    for key in ("seed", "study"):
        assert settings.record[key] == record[key], "nothing is changed on the way"


@cases()
@given(st.sampled_from(SECTIONS), st.dictionaries(st.sampled_from(["num_samples", "nproc", "zero_stage", "fonts", "glyph"]), junk) | junk)
def test_a_section_is_built_strictly(section: type, given_values: object) -> None:
    try:
        made = build(section, given_values, "here")
    except ConfigError:
        return
    assert build(section, dump(made), "here") == made


@cases(cost=20)
@given(st.lists(words, min_size=1, max_size=3))
@example(["=3"])
@example(["task=[sudoku]"])
def test_words_are_composed_or_refused(line: list[str]) -> None:
    try:
        settings = composed(line, CONF)
    except ConfigError:
        return
    assert rebuild(settings.record, path=Path()).record == settings.record


@cases()
@given(st.lists(st.text(max_size=8), max_size=3), st.dictionaries(st.text(max_size=4), st.text(max_size=6), max_size=2))
def test_lines_of_a_study_are_expanded_or_refused(cells: list[str], params: dict[str, str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        jobs = expanded(cells, params, [], OverridesParser.create().parse_overrides)
    except (ConfigError, HydraException, ValueError):
        return
    assert all(isinstance(word, str) for job in jobs for word in job)
