"""An attack that misbehaves as its parameter says; what it leaves behind must touch no other cell."""

import itertools
import logging
import os
import random
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import torch
from pydantic import Field

from bench.contracts import Attack, MethodParams, ThreatModel


class Misbehaves(Attack):
    """Darkens photos, and misbehaves."""

    name = "misbehaves"
    threat = ThreatModel(goal="untargeted", constraint="a tenth darker")

    class Params(MethodParams):
        """How it misbehaves."""

        how: str = Field("", description="name of one of its methods", json_schema_extra={"unit": ""})

    def cloak(self, faces, ctx):
        """Return photos a tenth darker, or what the misbehaviour returns."""
        edits = {name: image * 0.9 for name, image in zip(faces.ids, faces.images, strict=True)}
        found = getattr(self, self.params.how)(faces, edits)
        return edits if found is None else found

    # -- fails -----------------------------------------------------------------------------------------------

    def raises(self, faces, edits):
        raise RuntimeError("boom")

    def exits(self, faces, edits):
        sys.exit(0)

    def exits_with_words(self, faces, edits):
        sys.exit("bye")

    def interrupts(self, faces, edits):
        raise KeyboardInterrupt

    def recurses(self, faces, edits):
        return self.recurses(faces, edits)

    def no_such_file(self, faces, edits):
        raise PermissionError(13, "no", "/x")

    def broken_pipe(self, faces, edits):
        raise BrokenPipeError

    def other_shape(self, faces, edits):
        return {name: image[:, :50] for name, image in edits.items()}

    def not_a_number(self, faces, edits):
        return {name: image * float("nan") for name, image in edits.items()}

    def too_bright(self, faces, edits):
        return {name: image * 3 for name, image in edits.items()}

    def bytes_of_grey(self, faces, edits):
        return {name: (image * 255).to(torch.uint8) for name, image in edits.items()}

    def doubles(self, faces, edits):
        return {name: image.double() for name, image in edits.items()}

    def arrays(self, faces, edits):
        return {name: image.numpy() for name, image in edits.items()}

    def a_list(self, faces, edits):
        return list(edits.values())

    def somebody_elses(self, faces, edits):
        return {**edits, "someone/0001": next(iter(edits.values()))}

    def hangs(self, faces, edits):
        time.sleep(10**6)

    def hangs_and_catches(self, faces, edits):
        try:
            time.sleep(10**6)
        except Exception:  # it swallows the first alarm
            time.sleep(10**6)

    def takes_all_memory(self, faces, edits):
        kept = []
        while True:
            kept.append(torch.ones(16 << 20))

    def says_much(self, faces, edits):
        raise ValueError("z" * 3_000_000)

    def says_what_no_stream_shows(self, faces, edits):
        raise ValueError(
            "bad \udcff surrogate \x1b[31m=cmd()<script>\n../x | & % $ \\input{/etc/passwd} [red]x[/red] \u202e"
        )

    # -- leaves something behind -------------------------------------------------------------------------------

    def default_dtype(self, faces, edits):
        torch.set_default_dtype(torch.float64)

    def gradients(self, faces, edits):
        torch.set_grad_enabled(False)

    def threads(self, faces, edits):
        torch.set_num_threads(2)

    def nondeterministic(self, faces, edits):
        torch.use_deterministic_algorithms(mode=True, warn_only=True)

    def anomalies(self, faces, edits):
        torch.autograd.set_detect_anomaly(True)

    def denormals(self, faces, edits):
        torch.set_flush_denormal(True)

    def numpy_errors(self, faces, edits):
        np.seterr(all="raise")

    def seeds(self, faces, edits):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)

    def working_directory(self, faces, edits):
        os.chdir("/")

    def environment(self, faces, edits):
        os.environ.clear()

    def no_logging(self, faces, edits):
        logging.disable(logging.CRITICAL)

    def strict_warnings(self, faces, edits):
        warnings.simplefilter("error")

    def changes_the_photos(self, faces, edits):
        faces.images.mul_(0)

    def prints(self, faces, edits):
        print("x" * 1_000_000)  # noqa: T201

    # -- ends the process, or cannot be ended within it ------------------------------------------------------------

    def leaves(self, faces, edits):
        os._exit(0)

    def dies(self, faces, edits):
        os.kill(os.getpid(), signal.SIGSEGV)

    def hangs_in_c(self, faces, edits):
        sum(itertools.repeat(0))  # a loop in C: Python hears no alarm

    def deaf(self, faces, edits):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(10**6)

    def starts_others(self, faces, edits):
        subprocess.Popen(["sleep", "987654"])
        os._exit(1)
