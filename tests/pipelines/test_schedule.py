"""``pfs schedule``: at no time is there no schedule of a name, or two that are enabled."""

import json

import pytest
from pfs_pipelines import schedule as scheduling
from pfs_pipelines.cli import main
from pfs_pipelines.cron import six_fields

from pfs_core.errors import UserError
from tests.pipelines.kfp_api import PREFIX, RefusedError
from tests.pipelines.test_submit import TEXT, failed

DAILY = ("--name", "daily", "--cron", "0 2 * * *")


def create(package, *argv):
    return main(["schedule", "create", str(package), *TEXT, *DAILY, *map(str, argv)])


def listed(capsys):
    capsys.readouterr()
    assert main(["schedule", "list", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_schedule_starts_the_version_with_its_parameters(capsys, api, package):
    assert create(package, "--param", "count=2", "--max-concurrency", 3, "--experiment", "nightly", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    [schedule] = api.schedules.values()
    assert schedule["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert schedule["runtime_config"]["parameters"] == {"text": "hello", "count": 2}
    assert schedule["pipeline_version_reference"]["pipeline_version_id"] == facts["pipeline_version_id"]
    assert (schedule["max_concurrency"], schedule["no_catchup"], schedule["mode"]) == (3, True, "ENABLE")
    assert api.experiments[schedule["experiment_id"]]["display_name"] == "nightly"
    assert facts["link"] == f"{api.endpoint}/#/recurringrun/details/{schedule['recurring_run_id']}"


def test_the_service_account_is_kubeflows_unless_one_is_named(api, package):
    assert create(package) == 0
    [schedule] = api.schedules.values()
    assert not schedule.get("service_account")
    assert create(package, "--service-account", "pfs") == 0
    [schedule] = api.schedules.values()
    assert schedule["service_account"] == "pfs"


def test_one_run_at_a_time_is_the_default(api, package):
    assert create(package) == 0
    assert [schedule["max_concurrency"] for schedule in api.schedules.values()] == [1]


def test_a_schedule_of_the_same_name_is_replaced_new_before_old(capsys, api, package):
    assert create(package) == 0
    assert main(["schedule", "create", str(package), *TEXT, "--name", "other", "--cron", "0 0 1 * * *"]) == 0
    [old] = [key for key, schedule in api.schedules.items() if schedule["display_name"] == "daily"]
    api.calls.clear()
    assert create(package, "--cron", "0 3 * * *") == 0
    changes = [call for call in api.calls if not call.startswith("GET") and "recurringruns" in call]
    [new] = [key for key, schedule in api.schedules.items() if schedule["display_name"] == "daily"]
    path = f"{PREFIX}/recurringruns"
    assert changes == [
        f"POST {path}/{old}:disable",
        f"POST {path}",
        f"DELETE {path}/{old}",
        f"POST {path}/{new}:enable",
    ]
    assert sorted(api.enabled()) == ["daily", "other"]
    assert api.schedules[new]["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("request_", ["POST {}", "DELETE {}/", "POST {}/"])
def test_a_failure_in_between_leaves_one_or_none_enabled_and_the_same_command_finishes(
    capsys, api, package, request_, lost
):
    assert create(package) == 0
    api.enabled_at_once = 0
    api.faults = [(request_.format(f"{PREFIX}/recurringruns"), ("done", 500) if lost else 500)]
    assert create(package, "--cron", "0 3 * * *") == 1
    assert api.schedules
    capsys.readouterr()
    assert create(package, "--cron", "0 3 * * *") == 0
    assert api.enabled_at_once == 1
    [left] = api.schedules.values()
    assert left["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert left["mode"] == "ENABLE"


def test_a_failed_replacement_says_what_is_there(capsys, api, package):
    assert create(package) == 0
    api.faults = [(f"DELETE {PREFIX}/recurringruns/", 403)]
    capsys.readouterr()
    assert create(package) == 2
    assert "the new schedule 'daily' is there, paused; run the same command again" in capsys.readouterr().err
    assert sorted(schedule["mode"] for schedule in api.schedules.values()) == ["DISABLE", "ENABLE"]
    assert "2 schedules are named 'daily'" in failed(capsys, 2, "schedule", "resume", "daily")
    assert len(api.enabled()) == 1


def test_paused_stays_paused_until_it_is_resumed(capsys, api, package):
    assert create(package, "--paused") == 0
    assert "paused" in capsys.readouterr().out
    assert api.enabled() == []
    for action, enabled in (("resume", ["daily"]), ("pause", [])):
        assert main(["schedule", action, "daily"]) == 0
        assert api.enabled() == enabled
    assert main(["schedule", "delete", "daily"]) == 0
    assert not api.schedules


def going_on(api, name, state="RUNNING"):
    """A run of a schedule that has not ended."""
    [schedule] = [key for key, found in api.schedules.items() if found["display_name"] == name]
    run = {"run_id": f"of-{name}", "recurring_run_id": schedule, "created_at": "2026-01-03T02:00:00Z", "state": state}
    api.runs[run["run_id"]] = run
    return run


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELING"])
def test_a_schedule_is_not_deleted_or_replaced_under_a_run_that_goes_on(capsys, api, package, state):
    """Seen live: Kubernetes deletes the run's workflow with the schedule, and the run is RUNNING for ever."""
    assert create(package) == 0
    [old] = api.schedules
    going_on(api, "daily", state)
    capsys.readouterr()
    refused = "a run of schedule 'daily' is going on (of-daily), and Kubeflow would drop it with the schedule"
    assert refused in failed(capsys, 2, "schedule", "delete", "daily")
    going_on(api, "daily", state)
    assert create(package) == 2
    assert refused in capsys.readouterr().err
    assert api.enabled() == ["daily"]
    assert list(api.schedules) == [old]


@pytest.mark.parametrize("end_runs", [[], ["--end-runs"]])
@pytest.mark.parametrize("mode", ["ENABLE", "DISABLE"])
def test_a_schedule_that_the_cluster_has_lost_can_be_replaced_and_deleted(api, package, end_runs, mode):
    """Kubeflow's database keeps it, RUNNING runs included, where its namespace was deleted; it can be deleted only."""
    for again in (True, False):
        assert create(package) == 0
        [old] = api.schedules
        api.schedules[old]["mode"] = mode
        going_on(api, "daily")
        api.lost = {old}
        command = create(package, *end_runs) if again else main(["schedule", "delete", "daily", *end_runs])
        assert command == 0
        assert old not in api.schedules
        assert api.enabled() == ["daily"] * again
        assert not any("terminate" in call for call in api.calls)
        api.schedules.clear()


def test_a_lost_schedule_that_is_not_replaced_after_all_is_not_said_to_be_paused(capsys, api, package, monkeypatch):
    assert create(package) == 0
    api.lost = set(api.schedules)

    def refusing(values):
        raise RefusedError(403, "no more schedules")

    monkeypatch.setattr(api, "add_schedule", refusing)
    capsys.readouterr()
    assert create(package) == 2
    assert "paused" not in capsys.readouterr().err


def test_a_run_that_goes_on_is_found_behind_many_that_were_quicker(capsys, api, package):
    api.page = 100
    assert create(package) == 0
    slow = going_on(api, "daily")
    for i in range(250):
        quick = {"run_id": f"quick-{i}", "created_at": f"2026-02-01T02:{i // 60:02}:{i % 60:02}Z", "state": "SUCCEEDED"}
        api.runs[quick["run_id"]] = {**slow, **quick}
    capsys.readouterr()
    assert "is going on (of-daily)" in failed(capsys, 2, "schedule", "delete", "daily")


def test_it_is_paused_while_its_runs_are_looked_for_and_then_as_it_was(capsys, api, package):
    assert create(package) == 0
    [schedule] = api.schedules
    going_on(api, "daily")
    api.calls.clear()
    failed(capsys, 2, "schedule", "delete", "daily")
    path = f"{PREFIX}/recurringruns/{schedule}"
    calls = [call for call in api.calls if schedule in call or "/runs" in call]
    assert calls[0] == f"POST {path}:disable"
    assert calls[-1] == f"POST {path}:enable"
    assert main(["schedule", "pause", "daily"]) == 0
    going_on(api, "daily")
    failed(capsys, 2, "schedule", "delete", "daily")
    assert api.enabled() == []  # what was paused before stays so


def test_a_schedule_that_could_not_be_enabled_again_is_named_as_paused(capsys, api, package):
    assert create(package) == 0
    [schedule] = api.schedules
    going_on(api, "daily")
    api.faults = [(f"POST {PREFIX}/recurringruns/{schedule}:enable", 500)]
    said = failed(capsys, 2, "schedule", "delete", "daily")
    assert "is going on (of-daily)" in said
    assert "is paused now, enable it by pfs schedule resume" in said


def test_a_replacement_that_is_refused_leaves_the_old_one_enabled(api, package, monkeypatch):
    assert create(package) == 0
    [old] = api.schedules

    def refusing(values):
        raise RefusedError(403, "no more schedules")

    monkeypatch.setattr(api, "add_schedule", refusing)
    assert create(package) == 2
    assert list(api.schedules) == [old]
    assert api.enabled() == ["daily"]


@pytest.mark.parametrize("what", ["recurringruns", "runs"])
def test_a_server_that_sends_a_page_again_is_not_asked_for_ever(api, package, monkeypatch, what):
    assert create(package) == 0
    a_page = api.a_page

    def repeating(kind, query, entries, first):
        again = {"next_page_token": "0"} if kind == what else {}
        return {**a_page(kind, query, entries, first), **again}

    monkeypatch.setattr(api, "a_page", repeating)
    assert main(["schedule", "delete", "daily"]) == 0


@pytest.mark.parametrize("again", [False, True])
def test_end_runs_ends_them_first(api, package, monkeypatch, again):
    monkeypatch.setattr(scheduling, "EVERY", 0.001)
    assert create(package) == 0
    run = going_on(api, "daily")
    api.calls.clear()
    assert (create(package, "--end-runs") if again else main(["schedule", "delete", "daily", "--end-runs"])) == 0
    changes = [call.partition(" ")[2] for call in api.calls if not call.startswith("GET")]
    assert f"{PREFIX}/runs/of-daily:terminate" in changes
    deleted = f"{PREFIX}/recurringruns/{run['recurring_run_id']}"
    assert changes.index(f"{deleted}:disable") < changes.index(f"{PREFIX}/runs/of-daily:terminate")
    assert changes.index(f"{PREFIX}/runs/of-daily:terminate") < changes.index(deleted)
    assert run["state"] == "FAILED"
    assert api.enabled() == (["daily"] if again else [])


def test_a_run_that_does_not_end_keeps_its_schedule(capsys, api, package, monkeypatch):
    monkeypatch.setattr(scheduling, "EVERY", 0.001)
    monkeypatch.setattr(scheduling, "ENDING_SECONDS", 0.0)
    assert create(package) == 0
    going_on(api, "daily")
    capsys.readouterr()
    said = failed(capsys, 1, "schedule", "delete", "daily", "--end-runs")
    assert "run of-daily has not ended in 0 minutes; its schedule is there, paused" in said
    assert [found["mode"] for found in api.schedules.values()] == ["DISABLE"]


@pytest.mark.parametrize("action", ["pause", "resume", "delete"])
def test_an_unknown_name_is_refused_with_the_nearest(capsys, api, package, action):
    assert "no schedule 'daily'; known: none" in failed(capsys, 2, "schedule", action, "daily")
    create(package)
    capsys.readouterr()
    assert "no schedule 'dialy' (did you mean daily?)" in failed(capsys, 2, "schedule", action, "dialy")
    assert api.enabled() == ["daily"]


def test_list_turns_pages_and_knows_the_last_run(capsys, api, package):
    for i in range(5):
        assert create(package, "--name", f"n{i}", *(["--paused"] if i else [])) == 0
    first = next(iter(api.schedules))
    for i in (3, 9, 5):
        run = {"recurring_run_id": first, "created_at": f"2026-01-0{i}T02:00:00Z"}
        api.runs[f"r{i}"] = {"run_id": f"r{i}", **run}
    rows = listed(capsys)
    assert [(row["name"], row["enabled"]) for row in rows] == [("n0", True), *((f"n{i}", False) for i in range(1, 5))]
    assert [row["last_run"] for row in rows] == ["2026-01-09T02:00:00+00:00", None, None, None, None]
    assert main(["schedule", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "CRON", "STATE", "LAST", "RUN", "LINK"]
    link = f"{api.endpoint}/#/recurringrun/details/{first}"
    assert lines[1].split() == ["n0", *"002***", "enabled", "2026-01-09T02:00:00+00:00", link]


def test_many_users_see_their_own(capsys, api, package, monkeypatch):
    api.namespaces = ("team-a", "team-b")
    for namespace in api.namespaces:
        assert create(package, "--namespace", namespace) == 0
    assert api.enabled() == ["daily", "daily"]
    assert main(["schedule", "delete", "daily", "--namespace", "team-a"]) == 0
    assert [schedule["namespace"] for schedule in api.schedules.values()] == ["team-b"]


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("--cron", "0 2 * *"), "has 4 fields; expected 5"),
        (("--cron", "@daily"), "has 1 fields; expected 5"),
        (("--cron", "60 2 * * *"), "minutes '60' is not understood; from 0 to 59"),
        (("--cron", "0 2 31 2,apr *"), "no such month has day 31; it would never start"),
        (("--cron", "*/90 * * * *"), "minutes '*/90' is not understood"),
        (("--name", ""), "--name must be a name that can be seen"),
        (("--name", "n" * 256), "--name must be a name of at most 255 characters"),
        (("--max-concurrency", "11"), "--max-concurrency 11 is out of range; from 1 to 10"),
        (("--param", "count=x"), "parameter count must be a whole number"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(capsys, api, package, argv, reason):
    assert reason in failed(capsys, 2, "schedule", "create", package, *TEXT, *DAILY, *argv)
    assert api.calls == []


@pytest.mark.parametrize(
    "cron",
    [*("* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "5-1 * * * *", "*/0 * * * *", "a * * * *"),
     *("1-2-3 * * * *", "60 * * * * *", "* * * jan-foo *", ", * * * *", "-1 * * * *", "² * * * *")],
)  # fmt: skip
def test_cron_out_of_range_is_refused(cron):
    with pytest.raises(UserError, match="is not understood"):
        six_fields(cron)


@pytest.mark.parametrize(
    "cron",
    [
        "*/5 0-30/10 1,2 ? JAN-dec mon",
        "0 */24 * * *",
        "59 23 31 12 6",
        "0 0 31 2 1",
        "0 0 29 feb *",
        "0 0 30,31 2,3 *",
        "15 0 2 1-5 * ?",
    ],
)
def test_cron_within_range_is_kept(cron):
    assert six_fields(cron).split()[-5:] == cron.split()[-5:]
    assert len(six_fields(cron).split()) == 6


def test_the_help_says_whose_clock_it_is(capsys):
    with pytest.raises(SystemExit):
        main(["schedule", "create", "--help"])
    assert "CRON_SCHEDULE_TIMEZONE" in capsys.readouterr().out
