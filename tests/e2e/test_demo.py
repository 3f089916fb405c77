"""The demo ends by itself, and says truthfully whether all is as expected."""

from tests.e2e.running import RunningStack


def test_the_demo_passes_in_a_fresh_home_and_again_on_what_is_there() -> None:
    with RunningStack() as stack:
        for run in (1, 2):
            result = stack.run("demo", "--once", "--count", "6", "--seed", "1", timeout_s=400)
            assert result.returncode == 0, result.stdout + result.stderr
            assert "Everything is as expected" in result.stdout
            assert f"http://127.0.0.1:{stack.dashboard_port}" in result.stdout
            assert stack.processes() == []
            assert len(list((stack.home / "demo").iterdir())) == run
