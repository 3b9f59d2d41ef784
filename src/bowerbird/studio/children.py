"""Our own commands in child processes with a time limit: what they do to a stranger's files or code stays theirs."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence

from bowerbird.errors import BowerbirdError
from bowerbird.studio.language import Refusal


async def told(module: str, words: Sequence[str], seconds: float) -> tuple[int, str]:
    """Exit status and standard output of ``python -m module words``.

    BowerbirdError with its sentence where it says nothing else; Refusal after ``seconds``.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, said = await asyncio.wait_for(child.communicate(), seconds)
    except TimeoutError:
        raise Refusal("refused.slow", seconds=round(seconds)) from None
    finally:
        if child.returncode is None:  # also when whoever asked has left
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    lines = said.decode(errors="replace").strip().splitlines()
    if child.returncode != 0 and not out.strip():
        raise BowerbirdError(re.sub(r"^bowerbird: ", "", lines[-1])) if lines else Refusal("refused.silent")
    return child.returncode or 0, out.decode(errors="replace")
