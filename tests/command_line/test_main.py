"""What all commands share: signals, and what of other libraries is shown."""

import logging
import signal
import tempfile

import pytest
from quantize_jobs import quantized

from tensorflow_quantization_cli.start import plain_warnings


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
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["interrupt", "terminate"])
def test_a_signal_leaves_all_files_as_they_were(folder, monkeypatch, capsys, where, sent):
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
    status, said = (130, "interrupted") if sent == signal.SIGINT else (143, "terminated")
    assert quantized("--html", "page.html", "--keep", "kept", "--force") == status
    assert f"tensorflow-quantization: {said}." in capsys.readouterr().err
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
