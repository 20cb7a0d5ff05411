"""The file ``dispatcher.toml``: where it is looked for, what it sets, who may write it, and environments by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from backends.kubernetes.settings import KubernetesSettings
from dispatcher import Dispatcher, InvalidInput, InvalidSettings, KubernetesJobEnvironment, LocalEnvironment, flow
from dispatcher.cli.root import root
from dispatcher.code.exclusions import Exclusions
from dispatcher.environments.named import named, names
from dispatcher.settings import Settings

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a configuration file into the current directory, which is empty before, as is the user's folder."""
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    for variable in ("XDG_CONFIG_HOME", "DISPATCHER__CONFIG", "DISPATCHER__PROFILE"):
        monkeypatch.delenv(variable, raising=False)

    def write(text: str, path: Path = here / "dispatcher.toml") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


class TestSettings:
    def test_values_and_tables(self, write: Write) -> None:
        write(
            'url = "redis://there:6379/0"\n[worker]\nlabels = ["gpu"]\nconcurrency = 7\n'
            '[kubernetes]\nnamespaces = ["a"]'
        )
        settings = Settings.load()
        assert settings.url == "redis://there:6379/0"
        assert settings.worker.labels == {"gpu"}
        assert settings.worker.concurrency == 7
        assert settings.group(KubernetesSettings).namespaces == ("a",)

    def test_variables_come_first_and_arguments_before_them(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write('url = "redis://file/0"\n[worker]\nconcurrency = 7\ndrain = 5')
        monkeypatch.setenv("DISPATCHER__WORKER__CONCURRENCY", "3")
        settings = Settings.load(url="redis://argument/0")
        assert settings.url == "redis://argument/0"
        assert (settings.worker.concurrency, settings.worker.drain) == (3, 5)

    def test_paths_are_relative_to_the_file(self, write: Write, tmp_path: Path) -> None:
        path = write('signing_keys_file = "keys.json"\nstate_dir = "~/state"\n[worker]\nliveness_file = "/tmp/alive"')
        settings = Settings.load()
        assert settings.signing_keys_file == path.parent / "keys.json"
        assert settings.state_dir == tmp_path / "home" / "state"
        assert settings.worker.liveness_file == Path("/tmp/alive")

    def test_signing_keys_are_a_table(self, write: Write) -> None:
        write('[signing_keys]\nk1 = "a secret of 16 bytes or more"')
        keys = Settings.load().signing_keys
        assert keys is not None
        assert keys["k1"].secret.get_secret_value() == "a secret of 16 bytes or more"

    def test_where_it_is_looked_for(self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Settings.load().submit_within == 15
        write("submit_within = 1", tmp_path / "home/.config/dispatcher/dispatcher.toml")  # type: ignore[call-arg]
        assert Settings.load().submit_within == 1
        write("submit_within = 2")
        assert Settings.load().submit_within == 2
        other = write("submit_within = 3", tmp_path / "other.toml")  # type: ignore[call-arg]
        monkeypatch.setenv("DISPATCHER__CONFIG", str(other))
        assert Settings.load().submit_within == 3
        monkeypatch.setenv("DISPATCHER__CONFIG", "")
        assert Settings.load().submit_within == 15
        monkeypatch.setenv("DISPATCHER__CONFIG", str(tmp_path / "missing.toml"))
        with pytest.raises(InvalidSettings, match=r"missing.toml: there is no such file"):
            Settings.load()

    def test_a_changed_file_is_read_again(self, write: Write) -> None:
        write("submit_within = 1")
        assert Settings.load().submit_within == 1
        write("submit_within = 22")
        assert Settings.load().submit_within == 22

    def test_profiles_replace_what_stands_above(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        write(
            'url = "redis://a/0"\n[worker]\nconcurrency = 7\ndrain = 5\n[environments.gpu]\ntype = "local"\n'
            '[profiles.test]\nurl = "redis://b/0"\nworker = {drain = 6}\n'
            '[profiles.test.environments.gpu]\ntype = "local"\nlabels = ["test"]\n'
        )
        assert Settings.load().url == "redis://a/0"
        monkeypatch.setenv("DISPATCHER__PROFILE", "test")
        settings = Settings.load()
        assert settings.url == "redis://b/0"
        assert (settings.worker.concurrency, settings.worker.drain) == (7, 6)
        assert named("gpu").labels == ("test",)
        monkeypatch.setenv("DISPATCHER__PROFILE", "tset")
        with pytest.raises(InvalidSettings, match=r"no such profile; did you mean test\? \(known: test\)"):
            Settings.load()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("submit_wihtin = 3", r"dispatcher.toml: 'submit_wihtin' isn't a setting; did you mean submit_within\?"),
            ("[worker]\ndrian = 3", r"dispatcher.toml: worker.drian: isn't a setting; did you mean worker.drain\?"),
            ("[worker]\ndrain = -1", r"dispatcher.toml: worker.drain: must be greater than or equal to 0, got -1"),
            ("worker = 3", r"dispatcher.toml: worker: "),
            ("url = [", "isn't TOML"),
            ("environments = 3", "dispatcher.toml: environments: must be a table, got 3"),
            ("profiles.a = 3\n", None),
        ],
    )
    def test_mistakes_name_file_and_place(self, write: Write, text: str, message: str | None) -> None:
        write(text)
        if message is None:  # nobody has asked for that profile
            Settings.load()
            return
        with pytest.raises(InvalidSettings, match=message):
            Settings.load()

    def test_a_variables_mistake_names_the_variable(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        write("[worker]\ndrain = 3")
        monkeypatch.setenv("DISPATCHER__WORKER__DRAIN", "-1")
        with pytest.raises(InvalidSettings, match=r"^DISPATCHER__WORKER__DRAIN: must be"):
            Settings.load()


class TestSafety:
    def test_others_may_not_write_it(self, write: Write) -> None:
        write("submit_within = 3").chmod(0o666)
        with pytest.raises(InvalidSettings, match=r"can be written by others: chmod go-w .*dispatcher.toml"):
            Settings.load()

    def test_others_may_read_it_without_a_secret(self, write: Write) -> None:
        write('submit_within = 3\nurl = "redis://there:6379/0"').chmod(0o644)
        assert Settings.load().submit_within == 3

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ('url = "redis://:word@there/0"', "url"),
            ('[signing_keys]\nk = "a secret of 16 bytes or more"', "signing_keys"),
            ("[defaults]\nexecutor_kwargs = {password = 'word'}", "defaults.executor_kwargs"),
        ],
    )
    def test_others_may_not_read_a_secret(self, write: Write, text: str, place: str) -> None:
        path = write(text)
        Settings.load()
        path.chmod(0o660)  # of this user's own group
        with pytest.raises(InvalidSettings, match=f"{place} holds a secret, and .* chmod 600") as raised:
            Settings.load()
        assert "word" not in str(raised.value).replace("password", "")

    def test_it_travels_in_no_code_bundle(self, write: Write) -> None:
        path = write('url = "redis://:word@there/0"')
        assert Exclusions().file(path) == "may hold passwords"


class TestEnvironments:
    def test_a_table_has_the_arguments_of_its_class(self, write: Write) -> None:
        path = write(
            '[environments.gpu]\ntype = "kubernetes"\nlabels = ["gpu"]\njob_spec_file = "job.yaml"\n'
            'on_exit = "flows:tidy_up"\n[environments.gpu.resources.limits]\n"nvidia.com/gpu" = 1\n'
        )
        (path.parent / "job.yaml").write_text(
            "apiVersion: batch/v1\nkind: Job\nspec: {template: {spec: {containers: [{name: flow}]}}}\n"
        )
        environment = named("gpu")
        assert isinstance(environment, KubernetesJobEnvironment)
        assert environment.labels == ("gpu",)
        assert environment.resources == {"limits": {"nvidia.com/gpu": 1}}
        assert environment.job_spec is not None
        assert environment.to_json()["on_exit"] == {"ref": "flows:tidy_up"}

    def test_backends_and_classes_are_names(self, write: Write) -> None:
        assert named("local") == named("LocalEnvironment") == LocalEnvironment()
        assert named("kubernetes") == KubernetesJobEnvironment()
        write('[environments.local]\ntype = "local"\nlabels = ["mine"]')
        assert named("local").labels == ("mine",)
        assert names()[0] == "local"

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ('type = "Locl"', "unknown environment 'Locl'"),
            ("labels = []", "must be a table with a type"),
            ('type = "local"\nlables = ["a"]', r"LocalEnvironment has no 'lables'; did you mean labels\?"),
            ('type = "local"\nlabels = "a"', "environments.x: labels"),
            ('type = "local"\non_exit = "tidy_up"', "environments.x.on_exit: must be"),
            ('type = "kubernetes"\njob_spec_file = "none.yaml"', "can't read .*/here/none.yaml"),
        ],
    )
    def test_mistakes_name_file_and_table(self, write: Write, table: str, message: str) -> None:
        path = write(f"[environments.x]\n{table}\n")
        with pytest.raises(InvalidInput, match=message) as raised:
            named("x")
        assert f"{path}: environments.x" in str(raised.value)

    def test_submit_and_flow_take_a_name(self, write: Write) -> None:
        write('[environments.mine]\ntype = "local"\nlabels = ["a"]')
        work = flow(name="work", environment="mine")(lambda: 1)
        with Dispatcher("memory://") as client:
            assert client.submit(work).labels == ("a",)
            assert client.submit(work, environment="local").labels == ()
            with pytest.raises(InvalidInput, match=r"'mnie': no such name; did you mean mine\? \(known: mine, "):
                client.submit(work, environment="mnie")


class TestCommands:
    def test_init_writes_a_file_that_changes_nothing(self, write: Write) -> None:
        before = Settings.load()
        result = CliRunner().invoke(root, ["init"])
        assert result.exit_code == 0
        path = Path.cwd() / "dispatcher.toml"
        assert path.stat().st_mode & 0o777 == 0o600
        assert Settings.load() == before
        again = CliRunner().invoke(root, ["init"])
        assert again.exit_code != 0
        assert "exists already" in again.output

    def test_what_init_proposes_works(self, write: Write) -> None:
        CliRunner().invoke(root, ["init"])
        path = Path.cwd() / "dispatcher.toml"
        (path.parent / "job.yaml").write_text(
            "apiVersion: batch/v1\nkind: Job\nspec: {template: {spec: {containers: [{name: flow}]}}}\n"
        )
        lines = re.sub(r"^# (?=[a-z_]+ = |\[)", "", path.read_text(), flags=re.MULTILINE)
        path.write_text(lines)
        settings = Settings.load()
        assert settings.url == "redis://localhost:6379/0"
        assert settings.group(KubernetesSettings).namespaces == ("flows",)
        assert named("gpu").labels == ("gpu",)

    def test_user(self, write: Write, tmp_path: Path) -> None:
        assert CliRunner().invoke(root, ["init", "--user"]).exit_code == 0
        assert (tmp_path / "home/.config/dispatcher/dispatcher.toml").is_file()

    def test_config_and_profile_are_global_options(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DISPATCHER__CONFIG", "")  # so that both are put back after the test
        monkeypatch.setenv("DISPATCHER__PROFILE", "")
        other = write('[profiles.p.environments.e]\ntype = "local"', tmp_path / "other.toml")  # type: ignore[call-arg]
        (Path.cwd() / "flows.py").write_text("from dispatcher import flow\n\n@flow\ndef one() -> int:\n    return 1\n")
        arguments = ["--url", "memory://", "run", "flows.py:one", "--on", "e", "--config", str(other), "--profile", "p"]
        result = CliRunner().invoke(root, arguments)
        assert result.exit_code == 0, result.output
        wrong = CliRunner().invoke(root, [*arguments[:-1], "q"])
        assert "no such profile" in wrong.output
