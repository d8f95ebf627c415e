def pytest_configure(config):
    config.addinivalue_line(
        "markers", "compat: needs an environment beside the main one; skipped where it is not there"
    )
