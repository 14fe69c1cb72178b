"""Properties that hold for random inputs. Many cases: `--hypothesis-profile=nightly`."""
