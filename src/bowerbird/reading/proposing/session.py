"""An execution that is compared with another one, examined for the properties, and asked a model's own assertion."""

from typing import Any

import torch

from bowerbird.reading.history.session import Traced
from bowerbird.reading.properties import PROBES

ASSERTION_S = 6.0


class Examined(Traced):
    """Matched random numbers while the program runs, then the experiments, then ``request.observable``."""

    def execute(self) -> None:
        super().execute()
        if self.request.probes:
            self._probes(self.live(), only=PROBES)
        if self.request.observable:
            self._asserted(self.request.observable)
        self.recorder.flush()

    def _asserted(self, text: str) -> None:
        """Records whether the assertion holds, fails, or could not be made, and at which line of the program it raised.

        It sees what the program defines, and what a driver that was asked for has made of it.
        """
        torch.manual_seed(self.request.seed)
        self.loops.bounded = False
        value: dict[str, Any] = {"holds": None, "said": "its time was over"}
        with self.clock(ASSERTION_S, "observable"), self.functions, torch.enable_grad():
            try:
                exec(compile(text, "<observable>", "exec"), {**self.made, **self.namespace, "torch": torch})
                value = {"holds": True, "said": ""}
            except BaseException as error:  # a model's code, on a stranger's objects
                within = self.recorder.stack(error.__traceback__)
                failed = isinstance(error, AssertionError) and not within
                said = str(error)[:200] if failed else f"{type(error).__name__}: {str(error)[:200]}"
                value = {"holds": False if failed else None, "said": said, "within": within[-1][1] if within else None}
        self.recorder("hypothesis.observable", "observable", value, line=None, file=self.request.main, kind="probed")
