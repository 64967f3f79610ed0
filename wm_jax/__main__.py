"""The command line: ``wm-jax VERB …``, the same as ``python -m wm_jax VERB …``.

One line a verb. A verb's module is imported when the verb is asked for and not before, so that
``wm-jax --help`` answers at once. It offers ``main(argv) -> int`` and parses its own options.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys

from wm_jax import __version__, allocator
from wm_jax.errors import UserError

#: verb -> (module with ``main(argv)``, what it does)
VERBS = {
    "data": ("data_pipelines.cli", "build a data set, or look at one"),
    "train": ("wm_jax.train_cli", "train a model, or resume its run"),
    "checkpoint": ("wm_jax.checkpoint_cli", "list a run's checkpoints, or prove them whole"),
    "compile": ("wm_jax.ahead.cli", "what a run needs of a TPU slice, without a TPU"),
    "evaluate": ("wm_jax.evaluation.cli", "score a run on held-out episodes and write its report"),
    "compare": ("wm_jax.evaluation.compare", "score runs on the same episodes, paired"),
    "reproduce": ("wm_jax.studies.cli", "run a study: its claim, all arms, a verdict"),
    "edit": ("wm_jax.edit_cli", "change a scene in a sentence, and see both futures"),
    "imagine": ("wm_jax.imagine_cli", "scenes from a caption alone, and what happens in them"),
    "export": ("wm_jax.export", "turn a run into a folder that runs with jax alone"),
    "launch": ("wm_jax.launch.cli", "render a job for SLURM, TPU VMs, Kubernetes, SkyPilot"),
}


def usage() -> str:
    """The text of ``wm-jax --help``."""
    verbs = "\n".join(f"  {verb:<11}{what}" for verb, (_, what) in VERBS.items())
    return f"""\
usage: wm-jax VERB [options]

{verbs}

Every verb has --help with an example, and --json for results that a program reads:
  wm-jax train --help
  wm-jax train --config experiments/configs/twins.py:small --workdir runs/a
"""


def run(verb: str, argv: list[str]) -> int:
    """Imports the verb's module and runs it. Returns its exit status."""
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the verbs are {', '.join(VERBS)}."
        raise UserError(f"there is no verb '{verb}': {hint}")
    module = importlib.import_module(VERBS[verb][0])
    return module.main(argv) or 0


def main(argv: list[str] | None = None) -> int:
    """Runs one verb. 0 is success; 2 bad input, told in one sentence; 130 stopped by Ctrl-C."""
    from_shell, argv = argv is None, sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"wm-jax {__version__}")
        return 0
    if from_shell:
        allocator.restart(argv[0])
    try:
        status = run(argv[0], argv[1:])
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"wm-jax {argv[0]}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print(f"\nwm-jax {argv[0]}: stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
