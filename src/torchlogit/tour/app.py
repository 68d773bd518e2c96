# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""The tour as a page: what stands in each chapter, and its controls. The computations are in the modules beside."""

import marimo

app = marimo.App(width="full", app_title="torchlogit: the tour")


@app.cell
def _():
    import marimo as mo
    import torch

    from torchlogit.tour import doors, graph, layers, optimizers, page, pictures, points, sliders, step

    return doors, graph, layers, mo, optimizers, page, pictures, points, sliders, step, torch


@app.cell
def _(mo, page):
    mo.Html(
        page.opening(
            "Logistic regression, one number at a time",
            "Six short chapters, from a line between two groups of points to a small neural network. Nothing here is a "
            "recording: <b>every number is computed by PyTorch as you move a slider</b>, and under each chapter stands "
            "the code that has just run.",
        )
    )


# -- 1. what is the problem -----------------------------------------------------------------------------------------


@app.cell
def _(mo):
    own_points, set_own_points = mo.state([])
    return own_points, set_own_points


@app.cell
def _(mo, points, set_own_points):
    angle = mo.ui.slider(-180, 180, 5, 100, label="turn the line", show_value=True)
    shift = mo.ui.slider(-3, 3, 0.1, 0.8, label="move it", show_value=True)
    show_best = mo.ui.checkbox(label="show the best line")
    own_x1 = mo.ui.slider(-3.8, 3.8, 0.2, -2, label="your point: x₁", show_value=True)
    own_x2 = mo.ui.slider(-3, 3, 0.2, 2, label="x₂", show_value=True)
    own_label = mo.ui.dropdown(["orange", "blue"], "blue", label="group")

    def _add(_):
        mine = points.placed(own_x1.value, own_x2.value, own_label.value)
        set_own_points(lambda own: [*own, mine])

    # In the cell of the sliders: in one of their own these would be made anew at every move of a slider, and the
    # sliders be drawn anew with them, in the middle of the move.
    add_point = mo.ui.button(label="add this point", on_change=_add)
    clear_points = mo.ui.button(label="remove mine", on_change=lambda _: set_own_points([]))
    return add_point, angle, clear_points, own_label, own_x1, own_x2, shift, show_best


@app.cell
def _(add_point, angle, clear_points, mo, own_label, own_x1, own_x2, page, shift, show_best):
    mo.Html(
        page.chapter(
            1,
            "Two groups, and a line between them",
            "Each point has two coordinates and belongs to the blue group or the orange one. Turn and move the line until "
            "blue stands on the blue side. Points on the wrong side wear a ring. Then add points of your own, where you "
            "think they make it hard.",
            {
                "angle": angle, "shift": shift, "best": show_best, "x1": own_x1, "x2": own_x2, "label": own_label,
                "add": add_point, "clear": clear_points,
            },
        )
    )  # fmt: skip


@app.cell
def _(angle, mo, own_label, own_points, own_x1, own_x2, page, pictures, points, shift, show_best, torch):
    _X, _y = points.with_own(*points.two_groups(), own_points())
    _judged = points.judge(_X, _y, torch.pi * angle.value / 180, shift.value)
    _best = points.best_line(_X, _y) if show_best.value else None
    _wrong = int(_judged.wrong.sum())
    _ghost = points.placed(own_x1.value, own_x2.value, own_label.value)
    mo.Html(
        page.body(
            page.figures((
                "The dashed circle is the point you are about to add. The green line, if shown, is LogisticRegression's.",
                pictures.plane(_X, _y, _judged, len(own_points()), _ghost, _best),
            )),
            page.readings(1, {
                "points": ("points", len(_y)), "wrong": ("on the wrong side", _wrong), "loss": ("loss", _judged.loss),
            }),
            page.says(
                "Turn the line a little: the count of mistakes stands still, then jumps. It cannot say which way is "
                "better. The <b>loss</b> beside it moves with every touch, and it is what we minimise. What is it?"
            ),
            page.source(points.judge),
        )
    )  # fmt: skip


# -- 2. z, sigmoid and loss -----------------------------------------------------------------------------------------


@app.cell
def _(mo):
    own_hours, set_own_hours = mo.state([])
    return own_hours, set_own_hours


@app.cell
def _(mo, set_own_hours, sliders):
    weight = mo.ui.slider(-1, 5, 0.1, 0.5, label="weight w", show_value=True)
    bias = mo.ui.slider(-12, 4, 0.1, -1, label="intercept b", show_value=True)
    own_x = mo.ui.slider(0, 6.4, 0.1, 5, label="your point: hours", show_value=True)
    own_passed = mo.ui.dropdown(["failed", "passed"], "failed", label="and")

    def _add(_):
        mine = sliders.placed(own_x.value, own_passed.value)
        set_own_hours(lambda own: [*own, mine])

    add_hours = mo.ui.button(label="add this point", on_change=_add)
    clear_hours = mo.ui.button(label="remove mine", on_change=lambda _: set_own_hours([]))
    return add_hours, bias, clear_hours, own_passed, own_x, weight


@app.cell
def _(add_hours, bias, clear_hours, mo, own_passed, own_x, page, weight):
    mo.Html(
        page.chapter(
            2,
            "From a score to a probability to a loss",
            "Twelve people practised for some hours <i>x</i>; some passed. A score <b><i>z</i> = <i>wx</i> + <i>b</i></b> is bent "
            "by the sigmoid into a probability <b><i>p</i> = 1/(1 + e<sup>−z</sup>)</b>. The loss of a person is "
            "<b>−log</b> of the probability that was given to what really happened: near 0 for a confident hit, large for a "
            "confident miss. Make the mean of it as small as you can.",
            {"w": weight, "b": bias, "x": own_x, "passed": own_passed, "add": add_hours, "clear": clear_hours},
        )
    )


@app.cell
def _(bias, mo, own_hours, own_passed, own_x, page, pictures, sliders, torch, weight):
    _x, _y = sliders.hours()
    if own_hours():
        _mine = torch.tensor(own_hours(), dtype=_x.dtype)
        _x, _y = torch.cat([_x, _mine[:, 0]]), torch.cat([_y, _mine[:, 1]])
    _seen = sliders.forward(_x, _y, weight.value, bias.value)
    _columns = [_x, _y, _seen.z, _seen.p, _seen.losses]
    _rows = [[f"{k + 1}", *(f"{float(c[k]):.3f}".replace("-", "−") for c in _columns)] for k in range(len(_x))]
    _ghost = sliders.placed(own_x.value, own_passed.value)
    _steeper = "up" if _seen.slope_w < 0 else "down"
    mo.Html(
        page.body(
            page.figures(
                ("Blue passed, orange failed. A bar is how far the curve is from the truth. The dashed circle is yours.",
                 pictures.sigmoid(_x, _y, (weight.value, bias.value), _seen, len(own_hours()), _ghost)),
                ("The loss for every <i>w</i>, with your <i>b</i>. The dashed line is the slope where you stand.",
                 pictures.valley(_x, _y, weight.value, bias.value, _seen)),
            ),
            page.readings(2, {
                "points": ("points", len(_y)), "loss": ("loss", _seen.loss), "slope-w": ("slope in w", _seen.slope_w),
                "slope-b": ("slope in b", _seen.slope_b),
            }),
            page.says(
                f"The slopes come from <code>torch.autograd</code>. This one says: take <i>w</i> {_steeper}, and the loss "
                "falls. Where both slopes are 0, you have arrived: that is all that fitting means."
            ),
            page.more("Every person's numbers", page.table(["", "x", "y", "z", "p", "loss"], _rows, "tour-table-2")),
            page.source(sliders.forward),
        )
    )  # fmt: skip


# -- 3. one training step -------------------------------------------------------------------------------------------


@app.cell
def _(mo, step):
    step_count = 13
    last_place = step_count * len(step.STAGES) - 1
    place, set_place = mo.state(0)
    rate = mo.ui.slider(0.1, 3, 0.1, 1, label="learning rate", show_value=True)
    return last_place, place, rate, set_place, step_count


@app.cell
def _(last_place, mo, set_place, step):
    def _by(label, moments):
        return mo.ui.button(
            label=label, on_change=lambda _: set_place(lambda k: min(max(k + moments, 0), last_place))
        )  # fmt: skip

    back, forth = _by("← back", -1), _by("forward →", 1)
    step_back, step_forth = _by("« a whole step", -len(step.STAGES)), _by("a whole step »", len(step.STAGES))
    return back, forth, step_back, step_forth


@app.cell
def _(back, forth, mo, page, rate, step_back, step_forth):
    mo.Html(
        page.chapter(
            3,
            "One training step, opened up",
            "Four points, two weights, one intercept, all starting at 0: few enough to show <b>every tensor there is</b>. A step "
            "has four moments: forward, loss, backward, update. Walk through them, and back again.",
            {"back": back, "forth": forth, "step-back": step_back, "step-forth": step_forth, "rate": rate},
        )
    )


@app.cell
def _(rate, step, step_count):
    steps_taken = step.training_steps(*step.four_points(), rate.value, step_count)
    return (steps_taken,)


@app.cell
def _(graph, mo, page, pictures, place, rate, step, steps_taken):
    _number, _stage = divmod(place(), len(step.STAGES))
    _open = steps_taken[_number]
    mo.Html(
        page.body(
            page.says(graph.sentence(_number, _stage, rate.value)),
            graph.drawn(*step.four_points(), _open, _stage),
            page.readings(3, {
                "step": ("step", _number), "loss": ("loss of this step", float(_open.values["loss"]) if _stage >= graph.LOSS else None),
                "slope-w1": ("slope in w₁", float(_open.gradients["w"][0]) if _stage >= graph.BACKWARD else None),
                "slope-w2": ("slope in w₂", float(_open.gradients["w"][1]) if _stage >= graph.BACKWARD else None),
                "slope-b": ("slope in b", float(_open.gradients["b"]) if _stage >= graph.BACKWARD else None),
            }),
            page.figures(("The loss before each update. The ring is where you are.", pictures.history(steps_taken, _number))),
            page.more(
                "What autograd wrote down on the way forward, read from the loss back",
                page.says(" → ".join(f"<code>{name}</code>" for name in _open.graph)),
            ),
            page.source(step.training_step),
        )
    )  # fmt: skip


# -- 4. two doors ---------------------------------------------------------------------------------------------------


@app.cell
def _(doors, mo):
    strength = mo.ui.slider(steps=[0.01, 0.1, 1, 10, 100], value=1, label="C (less penalty →)", show_value=True)
    sgd_rate = mo.ui.slider(0.1, 2, 0.1, 0.5, label="learning rate", show_value=True)
    at_step = mo.ui.slider(0, doors.STEPS, 1, 30, label="steps of the loop", show_value=True)
    return at_step, sgd_rate, strength


@app.cell
def _(at_step, mo, page, sgd_rate, strength):
    mo.Html(
        page.chapter(
            4,
            "The easy button and the engine room",
            "Both minimise the same thing: the mean loss, plus a penalty on large weights. <b>LogisticRegression</b> is one "
            "line, and stops when it can prove that it is there. <b>train</b> is the loop of chapter 3, for any PyTorch module. "
            "Give the loop more steps, and watch it come to the same answer.",
            {"C": strength, "rate": sgd_rate, "step": at_step},
        )
    )


@app.cell
def _(doors, points, sgd_rate, strength):
    easy = doors.easy_button(*points.two_groups(), strength.value)
    loop = doors.engine_room(*points.two_groups(), strength.value, sgd_rate.value)
    return easy, loop


@app.cell
def _(at_step, doors, easy, loop, mo, page, pictures):
    _now = loop[at_step.value]
    _apart = float((_now.theta - easy.theta).abs().max())
    _rows = [
        ["LogisticRegression", *(f"{v:.7f}".replace("-", "−") for v in easy.theta.tolist()),
         page.cell(easy.objective, "tour-loss-fit-4")],
        [f"train, {at_step.value} steps", *(f"{v:.7f}".replace("-", "−") for v in _now.theta.tolist()),
         page.cell(_now.objective, "tour-loss-4")],
    ]  # fmt: skip
    _agreement = (
        "The two agree to nine decimals: <b>two routes, one optimum</b>." if _apart < 1e-9 else
        "The loop is still on its way. Look at the coefficients: they settle long after the loss looks finished."
    )  # fmt: skip
    mo.Html(
        page.body(
            page.table(["", "w₁", "w₂", "b", "objective"], _rows),
            page.readings(4, {
                "apart": ("largest difference of a coefficient", _apart),
                "excess": ("objective above the optimum", max(_now.objective - easy.objective, 0.0)),
            }),
            page.says(_agreement),
            page.figures(("How far the loop is above the optimum after each step. Each line across is ten thousand times less.",
                          pictures.approach(loop, easy.objective, at_step.value))),
            page.source(doors.easy_button, doors.engine_room),
        )
    )  # fmt: skip


# -- 5. optimizers and conditioning ---------------------------------------------------------------------------------


@app.cell
def _(mo):
    path_rate = mo.ui.slider(steps=[0.01, 0.03, 0.1, 0.3, 1, 3], value=0.3, label="learning rate", show_value=True)
    path_steps = mo.ui.slider(1, 200, 1, 60, label="steps", show_value=True)
    return path_rate, path_steps


@app.cell
def _(mo, page, path_rate, path_steps):
    mo.Html(
        page.chapter(
            5,
            "Why some landscapes are hard",
            "One column, one weight, one intercept: the loss is a landscape over (<i>w</i>, <i>b</i>), drawn by curves of equal "
            "height. On the left the column is as it came, far from zero for its spread, like ages or years, and the valley is "
            "<b>long and narrow</b>. On the right the same column has mean 0 and deviation 1. Same data, same model, same "
            "optimizers.",
            {"rate": path_rate, "steps": path_steps},
        )
    )


@app.cell
def _(optimizers, path_rate):
    _x, target = optimizers.ages()
    landscapes = {
        "raw": optimizers.landscape(_x, target, path_rate.value, 200),
        "standardised": optimizers.landscape(optimizers.standardised(_x), target, path_rate.value, 200),
    }
    return landscapes, target


@app.cell
def _(landscapes, mo, optimizers, page, path_steps, pictures, target):
    _rows = []
    for _name, _colour in pictures.COLOURS.items():
        _cells = []
        for _kind, _seen in landscapes.items():
            _at = _seen.paths[_name][: path_steps.value + 1][-1]
            _cells.append(page.cell(float(optimizers.loss_at(_at, _seen.x, target)), f"tour-loss-5-{_kind}-{_name}"))
        _rows.append([page.legend(_colour, "torchlogit's solver" if _name == "solver" else _name), *_cells])
    mo.Html(
        page.body(
            page.figures(*(
                (f"The column {_caption}. Condition number {_seen.condition:,.0f}: the steepest way bends that many times more "
                 "than the flattest.", pictures.contours(_seen, target, path_steps.value, _caption))
                for _caption, _seen in (("as it came", landscapes["raw"]), ("standardised", landscapes["standardised"]))
            )),
            page.table([f"loss after {path_steps.value} steps", "as it came", "standardised"], _rows),
            page.says(
                "Try a learning rate of 1. On the right it suits SGD well; on the left the same rate throws it from wall to "
                "wall, while a smaller one crawls along the floor: no rate suits both directions at once. The solver of "
                "<code>LogisticRegression</code> works with the curvature and in standardised units, so it takes the same "
                f"{len(landscapes['raw'].paths['solver']) - 1} steps on both sides, and needs no rate."
            ),
            page.source(optimizers.optimizer_path, optimizers.landscape),
        )
    )  # fmt: skip


# -- 6. deeper ------------------------------------------------------------------------------------------------------


@app.cell
def _(mo):
    depth = mo.ui.slider(0, 3, 1, 1, label="hidden layers", show_value=True)
    width = mo.ui.slider(2, 16, 1, 8, label="neurons in each", show_value=True)
    epochs = mo.ui.slider(20, 200, 20, 140, label="training steps", show_value=True)
    return depth, epochs, width


@app.cell
def _(depth, epochs, mo, page, width):
    mo.Html(
        page.chapter(
            6,
            "From one neuron to a deeper network",
            "All the way here the boundary was a straight line, because <i>z</i> is a weighted sum. Two half moons cannot be told "
            "apart by a line. Put <b>hidden layers</b> in front: each makes new columns out of the old ones, and the last "
            "layer is still the logistic regression you know.",
            {"layers": depth, "width": width, "epochs": epochs},
        )
    )


@app.cell
def _(epochs, layers):
    moons = layers.moons()
    straight = layers.trained(*moons, 0, 0, epochs.value)
    return moons, straight


@app.cell
def _(depth, epochs, layers, mo, moons, page, pictures, straight, width):
    _mine = layers.trained(*moons, depth.value, width.value, epochs.value)
    _wrong = [int(seen.wrong.sum()) for seen in (straight, _mine)]
    _hidden = "no hidden layer" if not depth.value else f"{depth.value} hidden × {width.value}"
    _verdict = (
        "With no hidden layer both pictures are the same: one neuron, one line." if not depth.value else
        f"The line leaves {_wrong[0]} points on the wrong side, the network {_wrong[1]}. "
        "Take neurons away until it breaks: how many does one layer need?"
    )  # fmt: skip
    mo.Html(
        page.body(
            page.figures(
                ("Logistic regression: one line.", pictures.surface(*moons, straight, "no hidden layer")),
                (f"Yours: {_hidden}.", pictures.surface(*moons, _mine, _hidden)),
            ),
            page.readings(6, {
                "loss-straight": ("loss of the line", straight.loss), "loss": ("loss of yours", _mine.loss),
                "wrong": ("on the wrong side", _wrong[1]), "parameters": ("numbers to learn", _mine.parameters),
            }),
            page.says(_verdict),
            page.source(layers.network, layers.trained),
        )
    )  # fmt: skip


if __name__ == "__main__":
    app.run()
