"""Requests are claimed once, finished once, and never lost."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from pfs_core.errors import AccessDeniedError, UnreachableError, UserError
from pfs_core.registry import claims, work
from pfs_core.registry.work import MAX_ATTEMPTS, find, finish, give_back
from pfs_core.steps.lifecycle import check_waiting as check
from pfs_core.tracking.model import move_alias

FIGURES = {"accuracy_drop": 0.02, "pruned_latency_ratio": 0.5}


@pytest.fixture
def later(monkeypatch):
    """Moves the clock of every claim."""

    def move(hours):
        moved = timedelta(hours=hours)
        monkeypatch.setattr(claims.Claim.__init__, "__defaults__", (lambda: datetime.now(UTC) + moved, lambda _: None))

    return move


@pytest.fixture
def result(registry, ask):
    """A version of ``NAME-pruned`` as the report registers it: ``NAME/VERSION``."""
    return lambda name: "/".join(ask(f"{name}-pruned", compress=None, model=None, dataset=None, budget=None))


def sources(found):
    return [request["source"] for request in found]


def test_nothing_to_do_is_an_empty_list(registry, capsys):
    assert find(5, 1, check) == []
    assert capsys.readouterr().out == "nothing to compress\n"


def test_requests_are_claimed_the_oldest_first_and_up_to_the_limit(ask, tags):
    asked = [ask(seed=str(i)) for i in range(3)]
    found = find(2, 1, check)
    assert sources(found) == [f"models:/{name}/{version}" for name, version in asked[:2]]
    assert [request["seed"] for request in found] == [0, 1]
    assert [tags(*version)["pfs.compress"] for version in asked] == ["claimed", "claimed", "requested"]
    assert found[0]["registered_model"] == f"{asked[0][0]}-pruned"


def test_two_versions_of_a_model_have_labels_of_their_own(ask):
    name, first = ask()
    _, second = ask(name)
    assert [request["label"] for request in find(5, 1, check)] == [f"{name}-{first}", f"{name}-{second}"]


def test_a_step_that_is_tried_again_gets_what_it_had(ask):
    ask()
    ask()
    assert sources(find(5, 1, check)) == sources(find(5, 1, check))


def test_what_another_run_has_is_left_alone(ask, monkeypatch):
    ask()
    first = find(5, 1, check)
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    assert find(5, 1, check) == []
    ask()
    assert len(find(5, 1, check)) == 1
    assert len(first) == 1


def test_all_pages_are_read(ask, registry, monkeypatch):
    for _ in range(5):
        ask()
    search = type(registry).search_model_versions
    monkeypatch.setattr(
        type(registry), "search_model_versions", lambda self, text, **more: search(self, text, max_results=2, **more)
    )
    assert len(find(10, 1, check)) == 5


def test_two_runs_at_once_share_the_work(ask, server):
    asked = {f"models:/{name}/{version}" for name, version in (ask() for _ in range(6))}
    code = (
        "import json\nfrom pfs_core.registry.work import find\nfrom pfs_core.steps.lifecycle import check_waiting\n"
        "print('FOUND', json.dumps(find(10, 1, check_waiting)))"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={"MLFLOW_TRACKING_URI": server, "KFP_RUN_ID": f"at-once-{i}", "PATH": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    taken = []
    for run in runs:
        line = next(line for line in run.communicate()[0].splitlines() if line.startswith("FOUND"))
        taken += sources(json.loads(line.removeprefix("FOUND")))
    assert sorted(taken) == sorted(asked)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": "resnet21"}, "did you mean resnet20?"),
        ({"model": None}, "pfs.model: is missing"),
        ({"dataset": None}, "pfs.dataset: is missing"),
        ({"dataset": "cifra10"}, "use digits, or a folder"),
        ({"budget": "macs=2"}, "must be a fraction"),
        ({"model_settings": "{width: 4}"}, "model_settings is not JSON"),
        ({"seed": "soon"}, "pfs.seed"),
        ({"seed": "4294967296"}, "pfs.seed"),
        ({"recipe": "cifar"}, "unknown recipe"),
        ({"max_accuracy_drop": "5"}, "pfs.max_accuracy_drop"),  # meant in percent: a gate that lets all through
        (
            {"max_acuracy_drop": "0.01"},
            "pfs.max_acuracy_drop is not a tag of a request (did you mean pfs.max_accuracy_",
        ),
        ({"budgets": "macs=0.3"}, "pfs.budgets is not a tag of a request (did you mean pfs.budget?)"),
        ({"Seed": "3"}, "pfs.Seed is not a tag of a request (did you mean pfs.seed?)"),
        ({"compres": "requested"}, "known: pfs.model, pfs.model_settings, pfs.dataset"),
    ],
)
def test_a_request_that_cannot_be_carried_out_fails_alone(wrong, says, ask, tags):
    bad, good = ask(**wrong), ask()
    assert sources(find(5, 1, check)) == [f"models:/{good[0]}/{good[1]}"]
    found = tags(*bad)
    assert found["pfs.compress"] == "failed"
    assert says in found["pfs.compress_error"]
    assert found["pfs.compress_run"] == "run-1"
    assert "pfs.compress_attempts" not in found
    assert found["pfs.compress_link"] == "kfp.pipeline_run_id=run-1"
    assert not [key for key in found if key.startswith(claims.PREFIX)]


def test_a_result_and_its_source_know_each_other(ask, tags, result, registry):
    name, version = ask()
    (request,) = find(5, 1, check)
    registered = result(name)
    for _ in range(2):  # a step that is tried again does no harm
        assert finish(request, registered, FIGURES, 1)
    source = tags(name, version)
    assert source["pfs.compress"] == "done"
    assert source["pfs.pruned"] == f"models:/{registered}"
    assert not [key for key in source if key.startswith(claims.PREFIX)]
    assert tags(*registered.split("/"))["pfs.source"] == f"models:/{name}/{version}"
    assert registry.get_model_version_by_alias(f"{name}-pruned", "accepted").version == registered.split("/")[1]
    assert find(5, 1, check) == []


def test_a_result_may_be_a_request_with_the_tags_that_it_has(ask, tags, registry):
    written = {
        "source": "models:/net/1",
        "pruned": "models:/n/2",
        "gate": "passed",
        "spec_sha256": "0",
        "method": "amc",
    }
    told = {"test_accuracy": "0.9", "latency_ratio": "0.5", "compress_run": "run-0", "compress_error": "no answer"}
    name, version = ask(**written, **told, compress_link="x", compress_attempts="1", **{"claim.run-0": "{}"})
    registry.set_model_version_tag(name, version, "owner", "me")
    assert sources(find(5, 1, check)) == [f"models:/{name}/{version}"]


@pytest.mark.parametrize(
    ("gate", "figures", "verdict"),
    [
        ({"max_accuracy_drop": "0.02", "min_speedup": "2"}, FIGURES, "passed"),
        ({"max_accuracy_drop": "0.01"}, FIGURES, "failed: the accuracy drop of 0.0200 is above 0.01"),
        ({"min_speedup": "2.5"}, FIGURES, "failed: the speedup of 2.000 is below 2.5"),
        ({"max_accuracy_drop": "0.5"}, {}, "failed: the accuracy drop was not measured"),
        ({"min_speedup": "1"}, {}, "failed: the latency was not measured"),
    ],
)
def test_only_what_passes_the_gate_is_accepted(gate, figures, verdict, ask, tags, result, registry):
    name, version = ask(**gate)
    (request,) = find(5, 1, check)
    registered = result(name)
    finish(request, registered, figures, 1)
    assert tags(*registered.split("/"))["pfs.gate"] == verdict
    aliases = registry.get_registered_model(f"{name}-pruned").aliases
    assert bool(aliases) == (verdict == "passed")
    assert tags(name, version)["pfs.compress"] == "done"


def test_accepted_is_the_newest_version_and_not_the_one_that_ended_last(ask, result, registry):
    first, second = ask(), ask()
    requests = find(5, 1, check)
    name = first[0]
    older, newer = result(name), result(name)
    finish(requests[1], newer, FIGURES, 1)
    finish(requests[0], older, FIGURES, 1)
    assert registry.get_model_version_by_alias(f"{name}-pruned", "accepted").version == newer.rpartition("/")[2]
    assert first != second


def test_an_alias_moves_on_and_never_back(ask, registry):
    name, _ = ask()
    for _ in range(10):
        ask(name)
    for version, at in (("2", "2"), ("10", "10"), ("9", "10"), ("10", "10"), ("11", "11")):
        move_alias(name, "newest", version)
        assert registry.get_model_version_by_alias(name, "newest").version == at


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("too wide"), "MemoryError: too wide"),
        (UnreachableError("S3 failed 8 times"), "S3 failed 8 times"),
        (AccessDeniedError("S3 refused access (ExpiredToken)"), "S3 refused access (ExpiredToken)"),
    ],
)
def test_what_breaks_the_check_is_tried_again_and_keeps_no_other_waiting(ask, tags, monkeypatch, error, reason):
    bad, good = ask(seed="7"), ask()

    def check(request):
        if request.seed == 7:
            raise error

    for attempt, state in enumerate(["requested"] * (MAX_ATTEMPTS - 1) + ["failed"], 1):
        monkeypatch.setenv("KFP_RUN_ID", f"try-{attempt}")
        assert f"models:/{bad[0]}/{bad[1]}" not in sources(find(5, 1, check))
        assert tags(*bad)["pfs.compress"] == state
        assert reason in tags(*bad)["pfs.compress_error"]
    assert tags(*good)["pfs.compress"] == "claimed"


@pytest.mark.parametrize(
    "odd",
    [
        {"claim.run-9": ""},
        {"claim.run-9": "{}"},
        {"claim.run-9": '{"state": "held", "expires": "2099-01-01"}'},
        {"compress_attempts": ""},
        {"compress_attempts": "many"},
        {"compress_attempts": "-7"},
    ],
    ids=str,
)
def test_tags_that_make_no_sense_stop_nothing(odd, ask, tags):
    bad, good = ask(**odd), ask()
    assert len(find(5, 1, check)) == 2
    give_back("the run ended without a result")
    for version in (bad, good):
        assert (tags(*version)["pfs.compress"], tags(*version)["pfs.compress_attempts"]) == ("requested", "1")


def test_a_version_that_is_deleted_meanwhile_is_passed_over(ask, registry, monkeypatch):
    gone, good = ask(), ask()
    listed = list(work._versions("requested"))
    registry.delete_model_version(*gone)
    monkeypatch.setattr(work, "_versions", lambda *states: listed)
    assert sources(find(5, 1, check)) == [f"models:/{good[0]}/{good[1]}"]
    assert give_back("the run ended without a result") == 1


@pytest.mark.parametrize(("limit", "hours"), [(-1, 1), (5, 0), (5, -1), (5, float("nan")), (5, 1e9)])
def test_numbers_out_of_range_are_refused(limit, hours, ask):
    ask()
    with pytest.raises(UserError, match="is out of range"):
        find(limit, hours, check)


def test_a_run_that_died_between_claim_and_state_gives_back_what_it_had(ask, tags, monkeypatch):
    version = ask()

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(work.Request, "of_tags", die)
        with pytest.raises(KeyboardInterrupt):
            find(5, 1, check)
    assert tags(*version)["pfs.compress"] == "requested"
    assert give_back("the run ended without a result") == 1
    assert not [key for key in tags(*version) if key.startswith(claims.PREFIX)]
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    assert len(find(5, 1, check)) == 1


def test_a_step_killed_after_its_last_tag_leaves_no_claim_when_it_is_tried_again(ask, tags, result, monkeypatch):
    name, version = ask()
    (request,) = find(5, 1, check)
    registered = result(name)
    with monkeypatch.context() as dying:
        dying.setattr(claims.Claim, "drop", lambda self: None)
        finish(request, registered, FIGURES, 1)
    assert [key for key in tags(name, version) if key.startswith(claims.PREFIX)]
    assert finish(request, registered, FIGURES, 1)
    assert not [key for key in tags(name, version) if key.startswith(claims.PREFIX)]


def test_what_had_failed_has_all_its_attempts_when_it_is_asked_for_again(ask, tags, registry):
    name, version = ask(compress_attempts=str(MAX_ATTEMPTS))
    assert len(find(5, 1, check)) == 1
    give_back("the run ended without a result")
    assert (tags(name, version)["pfs.compress"], tags(name, version)["pfs.compress_attempts"]) == ("requested", "1")


def test_a_result_ends_the_count_of_attempts(ask, tags, result, monkeypatch):
    name, version = ask()
    find(5, 1, check)
    give_back("the run ended without a result")
    (request,) = find(5, 1, check)
    finish(request, result(name), FIGURES, 1)
    assert not {"pfs.compress_attempts", "pfs.compress_error"} & set(tags(name, version))


def test_a_step_that_is_tried_again_after_the_run_gave_back_finishes(ask, tags, result):
    """Retry in Kubeflow's UI."""
    name, version = ask()
    (request,) = find(5, 1, check)
    give_back("the run ended without a result")
    assert finish(request, result(name), FIGURES, 1)
    assert tags(name, version)["pfs.compress"] == "done"


def test_what_another_run_finished_meanwhile_is_left_alone(ask, tags, result, monkeypatch, capsys):
    name, version = ask()
    (request,) = find(5, 1, check)
    give_back("the run ended without a result")
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    (taken,) = find(5, 1, check)
    assert finish(taken, result(name), FIGURES, 1)
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    assert not finish(request, result(name), FIGURES, 1)
    assert "finished by another run" in capsys.readouterr().out
    assert tags(name, version)["pfs.compress_run"] == "run-2"
    assert not [key for key in tags(name, version) if key.startswith(claims.PREFIX)]


def test_what_was_deleted_meanwhile_fails_nothing(ask, tags, result, registry, capsys):
    """Somebody may withdraw a model while it is trained; what came out stays in the registry."""
    name, version = ask()
    [request] = find(1, 1, check)
    registered = result(name)
    registry.delete_model_version(name, version)
    assert not finish(request, registered, FIGURES, 1)
    assert f"models:/{name}/{version} has been deleted" in capsys.readouterr().out
    assert "pfs.source" not in tags(*registered.split("/"))


def test_a_claim_that_expired_and_nobody_wanted_is_no_hindrance(ask, tags, result, later):
    name, version = ask()
    (request,) = find(5, 1, check)
    later(2)
    assert finish(request, result(name), FIGURES, 1)
    assert tags(name, version)["pfs.compress"] == "done"


def test_a_result_that_was_not_registered_is_an_error(ask):
    ask()
    (request,) = find(5, 1, check)
    with pytest.raises(UserError, match="not in the registry"):
        finish(request, "", FIGURES, 1)


def test_a_run_that_vanished_loses_its_claim_when_it_expires(ask, tags, result, later, monkeypatch):
    name, version = ask()
    (lost,) = find(5, 1, check)
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    assert find(5, 1, check) == []
    later(1.1)
    (taken,) = find(5, 1, check)
    assert taken == lost
    assert tags(name, version)["pfs.compress_attempts"] == "1"
    assert "run-1 vanished" in tags(name, version)["pfs.compress_error"]
    monkeypatch.setenv("KFP_RUN_ID", "run-1")  # it was only slow
    registered = result(name)
    assert not finish(lost, registered, FIGURES, 1)
    assert "pfs.source" not in tags(*registered.split("/"))
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    assert finish(taken, registered, FIGURES, 1)
    assert "pfs.compress_error" not in tags(name, version)


def test_what_a_run_could_not_finish_is_requested_again_and_failed_in_the_end(ask, tags, monkeypatch):
    name, version = ask()
    monkeypatch.setenv("KFP_UI_URL", "https://kubeflow.example")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        monkeypatch.setenv("KFP_RUN_ID", f"try-{attempt}")
        assert len(find(5, 1, check)) == 1
        for _ in range(2):
            give_back("the run ended without a result")
        state = tags(name, version)
        assert state["pfs.compress"] == ("requested" if attempt < MAX_ATTEMPTS else "failed")
        assert state["pfs.compress_attempts"] == str(attempt)
        assert f"https://kubeflow.example/#/runs/details/try-{attempt}" in state["pfs.compress_error"]
    assert find(5, 1, check) == []


def test_only_ones_own_claims_are_given_back(ask, tags, monkeypatch):
    version = ask()
    find(5, 1, check)
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    give_back("the run ended without a result")
    assert tags(*version)["pfs.compress"] == "claimed"


@pytest.mark.parametrize("missing", ["MLFLOW_TRACKING_URI", "KFP_RUN_ID"])
def test_without_a_registry_or_a_run_nothing_can_be_claimed(missing, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    monkeypatch.delenv(missing)
    with pytest.raises(UserError, match=missing):
        work.find(5, 1, check)
