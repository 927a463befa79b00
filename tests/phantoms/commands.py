"""Running the command line within a test."""

from situs.cli import main


def refused(capsys, args, *words) -> str:
    """Runs `args`, which must fail with exit code 2 and one line that holds `words`."""
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("situs: error: ") and err.count("\n") == 1 and err.endswith("\n")
    for word in words:
        assert word in err
    return err
