"""Entry point: reads flags, sets JAX up, calls one mode. Everything else is importable and tested.

python main.py --mode=segment --config=configs/dattt_synth_b0.py --workdir=OUT --config.segment.input=clip.mp4
"""

import importlib
import os
import signal
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from dattt_jax.config_checks import check_numbers
from dattt_jax.device_memory import is_out_of_memory, out_of_memory_line
from dattt_jax.errors import UserError
from dattt_jax.host_memory import start_with_huge_pages, trim_around_compiling
from dattt_jax.log_filter import quiet_libraries

# mode -> module:function; each takes (config, workdir).
MODES = {
    "train": "dattt_jax.train:train",
    "segment": "dattt_jax.segment:segment",
    "eval": "dattt_jax.evaluate:evaluate",
    "live": "dattt_jax.live:live",
    "score": "dattt_jax.score:score",
    "convert": "dattt_jax.convert:convert",
    "export": "dattt_jax.weights:export",
    "prepare": "dattt_jax.prepare:prepare",
    "doctor": "dattt_jax.doctor:doctor",
    "compare": "dattt_jax.compare_ttt:compare",
}

# JAX's own limit of a second leaves out the dozen small programs that every run needs beside its large one.
_KEEP_PROGRAMS_ABOVE_S = 0.1

FLAGS = flags.FLAGS
# No default: ml_collections would read it, with the overrides of the command line, while defining the flag.
config_flags.DEFINE_config_file("config", None, "The experiment, for example configs/dattt_synth_b0.py.",
                                lock_config=True)
flags.DEFINE_enum("mode", None, list(MODES), "What to do.")
flags.DEFINE_string("workdir", None, "Folder for everything this run writes.")
flags.DEFINE_string("coordinator", None, "host:port of process 0, to train or evaluate with several; "
                    "'auto' asks the cluster (Slurm, TPU, MPI, Kubernetes).")
flags.DEFINE_integer("num_processes", None, "How many processes there are; not with --coordinator=auto.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0; not with --coordinator=auto.")
flags.mark_flags_as_required(["config", "mode", "workdir"])


def set_up_jax(cache_dir: str) -> None:
    """The allocator, and the compilation cache in `config.compile_cache_dir`; '' leaves the cache off."""
    import jax

    trim_around_compiling()
    if cache_dir:
        folder = Path(cache_dir).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # programs are code: nobody else's
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", _KEEP_PROGRAMS_ABOVE_S)
        except OSError as error:
            logging.warning("config.compile_cache_dir: cannot make %s (%s); programs are not kept", folder,
                            error.strerror)
    logging.info("%d × %s", jax.device_count(), jax.devices()[0].device_kind)


def main(argv: list[str]) -> None:
    """Runs the mode."""
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; every option is --name=value")
    check_numbers(FLAGS.config)
    if not FLAGS.workdir:
        raise UserError("--workdir is empty: name a folder for everything this run writes")
    try:
        Path(FLAGS.workdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={FLAGS.workdir}: cannot make the folder ({error.strerror})") from error
    if FLAGS.coordinator is None and (FLAGS.num_processes, FLAGS.process_id) != (None, None):
        raise UserError("--num_processes and --process_id say which of several processes this is: give "
                        "--coordinator=host:port too")
    if FLAGS.coordinator is not None:
        from dattt_jax.parallel import join_processes

        join_processes(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    set_up_jax(FLAGS.config.compile_cache_dir)
    module, function = MODES[FLAGS.mode].split(":")
    getattr(importlib.import_module(module), function)(FLAGS.config, FLAGS.workdir)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with them is one line, with the nearest name of an unknown field."""
    try:
        rest = FLAGS(argv)
        FLAGS.config.lock()  # a file that could not be loaded is told on first use
        return rest
    except (flags.Error, AttributeError, KeyError) as error:
        while isinstance(error, BaseException) and error.args:  # ml_collections wraps one in another
            error = error.args[0]
        raise UserError(f"command line: {' '.join(str(error).split())}") from None
    except Exception as error:  # whatever executing the config's Python raises
        path = next((a.split("=", 1)[1] for a in argv if a.startswith("--config=")), "")
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"--config: {path} cannot be loaded: {reason}") from error


def run() -> None:
    """`main` with errors of the user's told in one line: exit status 2, no traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, where no mode does more
    sys.stdout.reconfigure(errors="replace")  # names of files may be no UTF-8
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    quiet_libraries()
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        sys.exit(_fail(str(error)))
    except KeyboardInterrupt:
        _fail("interrupted; what was written so far is complete")
        sys.stdout.flush()
        os._exit(130)  # the device may still compute: taking Python down under its threads can crash
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(_fail(out_of_memory_line(FLAGS.mode)))


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    start_with_huge_pages()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    run()
