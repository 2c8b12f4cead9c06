"""The runner of the pages' code: what it accepts, and that it can fail."""

from __future__ import annotations

import pytest

from .blocks import Block, blocks_of, commands_of, first_missing, run

PAGE = """# Title

```python
print("a")
```

```console
$ echo one
one
```
"""


def test_blocks_have_their_language_text_and_line():
    assert blocks_of(PAGE) == [Block("python", 'print("a")\n', 4), Block("console", "$ echo one\none\n", 8)]


def test_console_blocks_are_commands_with_their_output():
    assert commands_of("$ a\n1\n2\n$ b\n") == [("a", ["1", "2"]), ("b", [])]
    with pytest.raises(ValueError, match="starts with output"):
        commands_of("1\n$ a\n")


def test_output_may_have_more_lines_and_dots_stand_for_anything():
    printed = ["one 1.5 s", "two", "three"]
    assert first_missing(["one ... s", "three"], printed) is None
    assert first_missing(["three", "two"], printed) == "two"
    assert first_missing(["one"], printed) == "one"
    assert first_missing(["on. 1.5 s"], printed) == "on. 1.5 s"


@pytest.mark.parametrize(
    "block",
    [
        Block("python", "raise SystemExit(1)", 1),
        Block("python", "import warnings\nwarnings.warn('old')", 1),
        Block("sh", "false\ntrue", 1),
        Block("sh", "false | true", 1),
        Block("console", "$ echo one\ntwo\n", 1),
    ],
    ids=["python", "a warning", "a command before the last", "a command of a pipe", "other output"],
)
def test_a_block_that_fails_fails_the_page(block, tmp_path, script_environment):
    with pytest.raises(AssertionError):
        run(block, tmp_path, script_environment)


def test_a_model_that_is_not_one_fails_the_page(tmp_path, script_environment):
    from lstm_onnx import ConfigError

    with pytest.raises(ConfigError, match="hiden_size"):
        run(Block("toml", "[lstm]\nhiden_size = 3\n[weights]\nseed = 1\n", 1), tmp_path, script_environment)


def test_blocks_run_where_they_are_told(tmp_path, script_environment):
    assert run(Block("sh", "echo hello > a.txt", 1), tmp_path, script_environment) == ""
    assert run(Block("python", "print(open('a.txt').read())", 1), tmp_path, script_environment) == "hello\n\n"
    assert run(Block("text", "not run", 1), tmp_path, script_environment) is None
