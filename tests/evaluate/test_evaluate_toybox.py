from eyespot.evaluate import DEFAULT_TASKS, ToyboxConfig, evaluate


def test_all_tasks_run_and_rerun_alike(colour_encoder):
    config = ToyboxConfig(train=60, val=20, pairs=5, size=32)
    first, second = (evaluate([colour_encoder()], data=config) for _ in range(2))
    assert first == second
    assert {column.task for column in first.columns} == {"cost", *DEFAULT_TASKS}
    assert {key for key, value in first.floor.items() if value is not None} >= {
        column.key for column in first.columns if column.metric.headline and column.task != "cost"
    }
