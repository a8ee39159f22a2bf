"""What all commands share: signals, and what of other libraries is shown."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from functools import partial

import pytest
from PIL import Image
from quantize_jobs import quantized

from tensorflow_quantization_cli.start import plain_warnings, signals_after


def test_notes_on_tracing_are_not_shown(folder, capsys):
    notes = []

    class Handler(logging.Handler):
        def emit(self, record):
            notes.append(record.getMessage())

    logger, handler = logging.getLogger("tensorflow"), Handler()
    before = logger.level
    logger.setLevel(logging.WARNING)  # tests mute it
    logger.addHandler(handler)
    try:
        with plain_warnings():
            logger.warning("5 out of the last 15 calls to f triggered tf.function retracing.")
            logger.warning("another")
        logger.warning("a later tf.function retracing")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert notes == ["another", "a later tf.function retracing"]


@pytest.mark.parametrize(
    "where",
    [
        "tensorflow_quantization.export.onnx.exporter.verify_where_possible",
        "tensorflow_quantization_cli.summary.measure",
        "tensorflow_quantization.html_report",
    ],
)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["interrupt", "end", "hang up"])
def test_a_signal_leaves_all_files_as_they_were(folder, monkeypatch, capsys, request, where, sent):
    if sent != signal.SIGINT:  # SIGHUP is ignored where the tests outlive their terminal
        request.addfinalizer(partial(signal.signal, sent, signal.signal(sent, signal.SIG_DFL)))

    def interrupt(*arguments, **options):
        # Not os.kill: with AMX, OpenVINO enlarges the frame of a signal, which then overflows the stack that pytest's
        # faulthandler sets for signals.
        # SIGINT is ignored where the tests run in the background of a shell.
        handler = signal.default_int_handler if sent == signal.SIGINT else signal.getsignal(sent)
        handler(sent, None)

    (folder / "kept").mkdir()
    for name in ("model.onnx", "page.html", "kept/quantized.keras"):
        (folder / name).write_text("old")
    monkeypatch.setattr(where, interrupt)
    # Where a temporary file would stay.
    (folder / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    said = "interrupted" if sent == signal.SIGINT else "terminated"
    assert quantized("--html", "page.html", "--keep", "kept", "--force") == 128 + sent
    assert f"tensorflow-quantization: {said}." in capsys.readouterr().err
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before
    assert sent == signal.SIGINT or signal.getsignal(sent) is signal.SIG_DFL


@pytest.fixture
def handled():
    """SIGINT raises `KeyboardInterrupt`: it is ignored where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_libraries_are_imported_takes_effect_after_it(handled):
    steps = []
    with pytest.raises(KeyboardInterrupt), signals_after():
        signal.getsignal(signal.SIGINT)(signal.SIGINT, None)  # see above: not os.kill
        steps.append("imported")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # for a second interrupt
    assert steps == ["imported"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


class _Referenced:
    """What a weak reference can be of."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_in_a_callback_of_a_weak_reference_takes_effect(folder, monkeypatch, capsys, handled):
    """Python prints such an exception and goes on, and the command wrote its file."""

    def interrupt(*arguments, **options):
        referenced = _Referenced()
        reference = weakref.ref(referenced, lambda _: signal.default_int_handler(signal.SIGINT, None))
        del referenced
        for _ in range(200):
            time.sleep(0.05)
        return reference

    monkeypatch.setattr("tensorflow_quantization_cli.summary.measure", interrupt)
    assert quantized() == 130
    assert "tensorflow-quantization: interrupted." in capsys.readouterr().err
    assert not (folder / "model.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tensorflow_quantization", "tensorflow_quantization_cli"])
@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.5, 2.0])
def test_an_interrupted_command_ends(folder, module, seconds):
    """In the imports of TensorFlow and JAX, some of these interrupts were lost."""
    command = [sys.executable, "-m", module, "sensitivity", "model.keras", "--data", "images"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=_default_interrupt)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(signal.SIGINT)
    assert b"interrupted." in process.communicate()[1]
    assert process.returncode == 130


@pytest.mark.slow
def test_an_interrupt_in_the_training_ends_the_process(folder):
    """TensorFlow's thread was in the code that reads samples when Python freed the training: they waited for ever."""
    for index in range(20):
        Image.effect_noise((700, 700), 50).convert("RGB").save(folder / "images" / f"large{index}.png")
    command = [sys.executable, "-m", "tensorflow_quantization_cli", "quantize", "model.keras", "--data", "images"]
    command += ["-o", "model.onnx", "--steps", "100000"]
    before = sorted(os.listdir(folder))
    with open("said", "w+") as said:
        running = subprocess.Popen(command, stdout=said, stderr=said, preexec_fn=_default_interrupt)
        try:
            while "before the training" not in (folder / "said").read_text():
                assert running.poll() is None
                time.sleep(0.1)
            time.sleep(3)  # until it has begun
            running.send_signal(signal.SIGINT)
            assert running.wait(20) == 130
        finally:
            running.kill()
    assert (folder / "said").read_text().endswith("tensorflow-quantization: interrupted.\n")
    assert sorted(os.listdir(folder)) == sorted([*before, "said"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_output_that_cannot_be_written_is_named_and_output_that_nobody_reads_is_not():
    pytest.importorskip("shtab")
    command = [sys.executable, "-m", "tensorflow_quantization_cli", "completion", "bash"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    said = "tensorflow-quantization: The output could not be written to stdout: No space left on device.\n"
    assert (done.returncode, done.stderr) == (2, said)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def _default_interrupt():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("module", ["tensorflow_quantization", "tensorflow_quantization_cli"])
@pytest.mark.parametrize(("backend", "hint"), [("jaxx", " Did you mean 'jax'?"), ("numpy", "")])
def test_an_unknown_backend_is_named_before_keras_is_imported(folder, module, backend, hint):
    done = subprocess.run(
        [sys.executable, "-m", module, "describe", "model.keras"],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"tensorflow-quantization: The environment variable KERAS_BACKEND is {backend!r}, not tensorflow, jax or torch."
        f"{hint}\n"
    )
