"""Policies in files of their own: what is merged over what, and where problems are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenant_proxy.config.load import load
from tenant_proxy.config.policy_files import load_policy
from tenant_proxy.config.problems import ConfigError
from tenant_proxy.config.reference import keys
from tenant_proxy.config.reload import changes
from tenant_proxy.config.schema import Config, GuardMode, Policy, merged
from tests.unit.config.files import config, only_problem, problems

PROFILES = sorted((Path(__file__).parents[3] / "config").glob("policy*.yaml"))


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return directory


def policy_of(built: Config, name: str) -> Policy:
    return merged(built.policy, next(tenant.policy for tenant in built.tenants if tenant.name == name))


def test_what_is_merged_over_what(tmp_path):
    write(
        tmp_path,
        all="mode: observe\nallowed_schemas: [shared]\ndenied_functions: [md5]\n",
        one="allowed_schemas: []\nallowed_functions: [f, g]\n",
    )
    built = config(
        """
        policy_file: all.yaml
        policy: {denied_functions: [lower]}
        tenants:
          - {name: a}
          - {name: b, policy_file: one.yaml, policy: {allowed_functions: [f]}}
        """,
        base=tmp_path,
    )
    assert policy_of(built, "a") == Policy(
        mode=GuardMode.OBSERVE, allowed_schemas=["shared"], denied_functions=["lower"]
    )
    assert policy_of(built, "b") == policy_of(built, "a").model_copy(
        update={"allowed_schemas": [], "allowed_functions": ["f"]}
    )
    # behind the loader paths are absolute
    assert built.policy_file == str(tmp_path / "all.yaml")


def test_a_problem_is_told_with_the_policy_file_s_line(tmp_path):
    write(tmp_path, p="# policy\nmode: enforce\nallowed_schemas: [x]\nmod: off\n")
    found = only_problem("policy_file: p.yaml\ntenants: [{name: a, policy_file: p.yaml}]", base=tmp_path)
    assert (found.file, found.key) == (str(tmp_path / "p.yaml"), "mod")
    assert found.hint == 'did you mean "mode"?'
    assert "p.yaml:" in str(found)


def test_what_only_the_whole_shows_is_told_there_too(tmp_path):
    """Cross-checks see the merged policy; their place is where the key stands."""
    write(tmp_path, p="\n\nallow_replication: true\n", q="cache_entries: 50\n")
    found = only_problem("pool: {mode: transaction}\npolicy_file: p.yaml", base=tmp_path)
    assert (Path(found.file).name, found.key) == ("p.yaml", "policy.allow_replication")
    with pytest.raises(ConfigError) as failed:
        config("tenants: [{name: a, policy_file: q.yaml}]", base=tmp_path)
    (problem,) = failed.value.problems
    assert (Path(problem.file).name, problem.line) == ("q.yaml", 1)
    assert problem.key == "tenants[0].policy.cache_entries"


def test_a_key_that_is_overridden_is_told_where_it_counts(tmp_path):
    write(tmp_path, p="denied_settings: [work_mem]\n")
    found = only_problem("policy_file: p.yaml\npolicy:\n  denied_settings: ['a b']", base=tmp_path)
    assert (found.file, found.line) == ("f.yaml", 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, 'cannot read "p.yaml": No such file or directory'),
        ("- mode\n", "must be a mapping"),
        ("mode: [\n", "invalid YAML"),
        ("mode: on\n", '"on" is not a value of this key'),
    ],
)
def test_files_that_can_not_be_used(text, says, tmp_path):
    if text is not None:
        write(tmp_path, p=text)
    found = only_problem("policy_file: p.yaml", base=tmp_path)
    assert says in found.message
    assert found.key == ("policy_file" if text is None else found.key)


def test_a_file_of_comments_changes_nothing(tmp_path):
    write(tmp_path, p="# nothing\n")
    assert config("policy_file: p.yaml", base=tmp_path).policy == Policy()


def test_a_bad_name_of_a_file():
    assert problems("policy_file: 3\npolicy: [x]")


def test_a_reload_says_what_a_policy_file_changed(tmp_path):
    text = "tenants: [{name: a, policy_file: p.yaml}]"
    write(tmp_path, p="mode: observe\n")
    before = config(text, base=tmp_path)
    write(tmp_path, p="mode: enforce\n")
    (change,) = changes(before, config(text, base=tmp_path))
    assert str(change) == 'tenants[a].policy.mode: was "observe", is now "enforce"'


# --- the profiles that come with the proxy -----------------------------------------


def test_there_are_some():
    assert {path.name for path in PROFILES} >= {
        "policy.yaml",
        "policy.strict.yaml",
        "policy.legacy.yaml",
        "policy.observe.yaml",
    }


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_profiles_can_be_used_at_the_top_and_of_a_tenant(profile, tmp_path):
    file = tmp_path / "tp.yaml"
    file.write_text(
        "clusters: [{name: main, host: localhost, database: app}]\n"
        f"policy_file: {profile}\ntenants: [{{name: acme, policy_file: {profile}}}]\n"
    )
    loaded = load(file)
    assert not loaded.warnings
    assert policy_of(loaded.config, "acme") == merged(Policy(), load_policy(profile))


def test_the_reference_has_every_key_with_its_default():
    found = load_policy(PROFILES[0].with_name("policy.yaml"))
    assert merged(Policy(), found) == Policy()
    words = {key.name.removeprefix("policy.") for key in keys() if key.name.startswith("policy.")}
    assert found.keys() == words - {"cache_entries"}
