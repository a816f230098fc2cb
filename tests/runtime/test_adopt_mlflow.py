"""Where a step finds MLflow: in what the package says, in what Kubeflow's plugin says, or in both."""

import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.runtime.environment import SECRETS, SERVERS, adopt_mlflow, in_a_pod
from pfs_core.runtime.progress import user_errors

NAMES = [name for name in (*SERVERS, *SECRETS) if name.startswith("MLFLOW_")]
URI, TOKEN = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"
OURS, LOGIN = {in_a_pod(URI): "http://ours:5000"}, {in_a_pod(TOKEN): "our token"}


def adopted(environment):
    """MLflow's variables of a step in a pod with this environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if "MLFLOW_" in name]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        before = dict(os.environ)
        adopt_mlflow()
        found = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        return found


def test_without_the_plugin_it_is_the_packages():
    assert adopted({**OURS, **LOGIN}) == {URI: "http://ours:5000", TOKEN: "our token"}


def test_what_the_plugin_sets_wins():
    given_ = {URI: "http://plugin", "MLFLOW_RUN_ID": "r", "MLFLOW_TRACKING_USERNAME": "u"}
    assert adopted({**OURS, **LOGIN, **given_}) == given_


def test_our_login_goes_to_no_other_address():
    assert adopted({**OURS, **LOGIN, URI: "http://plugin"}) == {URI: "http://plugin"}


def test_our_login_goes_to_our_address_where_the_plugin_brings_none():
    found = adopted({**OURS, **LOGIN, URI: "http://ours:5000/", "MLFLOW_RUN_ID": "r"})
    assert found == {URI: "http://ours:5000/", "MLFLOW_RUN_ID": "r", TOKEN: "our token"}


def test_what_is_no_login_is_kept_beside_the_plugins():
    page = {in_a_pod("MLFLOW_UI_URL"): "https://mlflow.example.org"}
    assert adopted({**OURS, **page, URI: "http://ours:5000"})["MLFLOW_UI_URL"] == "https://mlflow.example.org"


def test_what_belongs_to_our_server_is_not_adopted_for_another():
    ours = {in_a_pod(name): "ours" for name in NAMES if name != URI}
    assert adopted({**OURS, **ours, URI: "http://plugin"}) == {URI: "http://plugin"}
    assert adopted({**OURS, **ours, URI: "http://ours:5000"}).keys() == set(NAMES)


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_nothing_that_is_set_changes_and_nothing_is_invented(ours, others):
    environment = {in_a_pod(name): f"our {name}" for name in ours} | {name: f"other {name}" for name in others}
    found = adopted(environment)
    assert {name: found[name] for name in others} == {name: f"other {name}" for name in others}
    assert all(value == f"our {name}" for name, value in found.items() if name not in others)
    assert found.keys() <= ours | others


@mock.patch.dict(os.environ)
def test_every_step_does_it():
    os.environ.pop(URI, None)
    os.environ[in_a_pod(URI)] = "http://ours:5000"
    with user_errors():
        assert os.environ[URI] == "http://ours:5000"
