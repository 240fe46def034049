"""Why `fdnn.study` has no rows in the contract."""

EXEMPT: dict[str, str] = {
    "study.compare": "SciPy's statistics, of numbers on the host",
    "study.compare_all": "SciPy's statistics, of numbers on the host",
    "study.equivalence": "SciPy's statistics, of numbers on the host",
    "study.from_functions": "an experiment from functions",
    "study.holm": "SciPy's statistics, of numbers on the host",
    "study.power": "SciPy's statistics, of numbers on the host",
    "study.proportion": "SciPy's statistics, of numbers on the host",
    "study.run": "a loop with progress; its lanes are tested with it",
    "study.seeds_needed": "SciPy's statistics, of numbers on the host",
    "study.successive_halving": "a loop with progress; its lanes are tested with it",
    "study.summarize": "SciPy's statistics, of numbers on the host",
    "study.training": "an experiment from a model",
    "study.where": "a view of a study",
}
