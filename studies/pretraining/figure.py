"""LDS against CPU time, as a table and a picture."""

NAMES = {"scratch": "from scratch", "head": "head on features"}


def experiment(count):
    """What TRAK's scores of so many models are called."""
    return f"trak-{count}"


def interval(entry):
    """An LDS and its 95 % interval."""
    return entry["lds"], entry["lds_low"], entry["lds_high"]


def rows(name, judged, cost, counts):
    """What reached which LDS, and the CPU time of all that it took.

    Parameters
    ----------
    name : str
    judged : dict
        What ``dmstore evaluate --curve --json`` said, with TRAK's experiments of `counts`.
    cost : dict
        CPU seconds: ``run``, ``full`` (a model on all data), ``trak`` (of one model), ``fit``.
    counts : sequence of int

    Returns
    -------
    list of (str, str, int, float, float, float, float)
        Algorithm, method, runs or models, CPU seconds, LDS and its interval.
    """
    made = []
    for step in judged["curve"]["steps"]:
        seconds = step["runs"] * cost["run"] + cost["fit"]
        made.append((name, "datamodels", step["runs"], seconds, *interval(step)))
    methods = {entry["method"]: entry for entry in judged["methods"]}
    for count in counts:
        entry = methods[experiment(count)]
        seconds = count * (cost["full"] + cost["trak"])
        made.append((name, "TRAK", count, seconds, *interval(entry)))
    return made


def lines(made):
    """The table as text."""
    said = [f"{'':8} {'':10} {'runs or models':>14} {'CPU minutes':>11}   LDS  95 %"]
    said += [
        f"{name:8} {method:10} {count:14,} {seconds / 60:11.1f} {lds:6.3f}  {low:.3f} to {high:.3f}"
        for name, method, count, seconds, lds, low, high in made
    ]
    return said


def draw(made, path):
    """The table as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.5, 3.6), layout="constrained")
    for name, colour in zip(NAMES, ("C0", "C1"), strict=True):
        for method, style in (("datamodels", "o-"), ("TRAK", "s--")):
            some = [row for row in made if row[:2] == (name, method)]
            if some:
                _, _, _, seconds, lds, low, high = zip(*some, strict=True)
                minutes = [one / 60 for one in seconds]
                axes.plot(minutes, lds, style, color=colour, label=f"{method}, {NAMES[name]}")
                axes.fill_between(minutes, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", xlabel="CPU time in minutes", ylabel="LDS", ylim=(0, 1))
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
