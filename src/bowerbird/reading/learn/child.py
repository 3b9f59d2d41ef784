"""The child that runs answers: one fork per answer, guarded and limited; one line of JSON per answer on its output."""

import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bowerbird.reading.learn import checks
from bowerbird.reading.learn.exercise import seen_in
from bowerbird.reading.running import kernel
from bowerbird.reading.running.child import cut_off
from bowerbird.reading.running.guards import Guard, limit
from bowerbird.reading.wording import LANGUAGES

CPU_S = 20.0
WALL_S = 40.0
MEMORY_BYTES = 2 * 2**30


def main(home: Path) -> None:
    torch.set_num_threads(1)
    checks.load()
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # the first one loads much, some of it into files
    for number, row in enumerate(json.loads(sys.stdin.read())):
        print(_in_a_fork(row, home / f"answer-{number}"), flush=True)


def _in_a_fork(row: dict[str, Any], scratch: Path) -> str:
    """The observations of one answer as JSON, whatever becomes of its process."""
    scratch.mkdir()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _become(row, scratch, write)
    os.close(write)
    text, end = b"", time.monotonic() + WALL_S
    while select.select([read], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(read, 65536)
        if not piece:
            break
        text += piece
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == 0 and text:
        return text.decode()
    return json.dumps([_wrong("It was stopped: it took too much time or memory.", "已被终止：用了过多的时间或内存。")])


def _become(row: dict[str, Any], scratch: Path, write: int) -> None:
    """The fork: runs the answer and its check, says what was observed, never returns."""
    cut_off(write)
    status = 1
    try:
        os.chdir(scratch)
        rows = _observe(row, scratch)
        os.write(write, json.dumps(rows, ensure_ascii=False).encode())
        status = 0
    finally:
        os._exit(status)


def _observe(row: dict[str, Any], scratch: Path) -> list[dict[str, object]]:
    words = seen_in(row["exercise"])  # while files can still be read
    path = scratch / row["file"]
    path.write_text(row["source"], encoding="utf-8")
    limit(MEMORY_BYTES, CPU_S)
    against = kernel.confine(scratch, kernel.packages())
    if against and not row["unconfined"]:
        return [_wrong(f"It was not run: {against}.", f"没有运行：{against}。")]
    Guard(scratch, lambda what, detail: None).arm()
    answer = ModuleType("answer")
    answer.__file__ = str(path)
    seen: list[dict[str, object]] = []
    try:
        exec(compile(row["source"], str(path), "exec"), answer.__dict__)
        torch.manual_seed(0)
        for observation in checks.CHECKS[row["exercise"]](answer):
            told = words[observation.key]
            said: dict[str, object] = {lang: told[lang].format(**observation.values) for lang in LANGUAGES}
            seen.append({"ok": bool(observation.ok), **said})
    except (Exception, SystemExit) as error:
        seen.append(_failure(error, path))
    return seen


def _failure(error: BaseException, path: Path) -> dict[str, object]:
    """An exception as an observation, at the last line of the answer that it passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    what = f"{type(error).__name__}: {error}"
    if line is None:
        return _wrong(f"The check could not use the answer: {what}", f"无法检验这份答案：{what}")
    return _wrong(f"Line {line} ended with {what}", f"第 {line} 行出错：{what}")


def _wrong(en: str, zh: str) -> dict[str, object]:
    return {"ok": False, "en": en, "zh": zh}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
