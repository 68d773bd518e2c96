"use strict";
// Everything is on the page without this script; it moves the sliders. It is given numbers alone, never markup.
(function () {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const at = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  function told(value, digits) {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 1) : value.toPrecision(digits);
    return text.replace("e+", "e").replace(/-/g, "−");
  }

  function digits(cell, value) {
    const whole = Number.isInteger(value) ? String(value) : value.toFixed(1);
    const [head, tail] = whole.split(".");
    cell.textContent = "";
    const first = head.length % 3 || 3;
    cell.append(head.slice(0, first));
    for (let place = first; place < head.length; place += 3) {
      const group = document.createElement("span");
      group.className = "g";
      group.textContent = head.slice(place, place + 3);
      cell.append(group);
    }
    if (tail) cell.append("." + tail);
  }

  // -- training

  function surface(plane, theta) {
    // many classes: the likeliest class in each cell of a grid, stronger where the model is surer
    const [left, top, right, bottom] = plane.box, across = 60, down = 50;
    const group = at("training-surface");
    if (!group.children.length) {
      for (let cell = 0; cell < across * down; cell++) {
        const rect = document.createElementNS(SVG, "rect");
        const w = (right - left) / across, h = (bottom - top) / down;
        rect.setAttribute("x", left + (cell % across) * w);
        rect.setAttribute("y", top + Math.floor(cell / across) * h);
        rect.setAttribute("width", w);
        rect.setAttribute("height", h);
        group.append(rect);
      }
    }
    for (let cell = 0; cell < across * down; cell++) {
      const x = plane.low[0] + ((cell % across) + 0.5) / across * (plane.high[0] - plane.low[0]);
      const y = plane.high[1] - (Math.floor(cell / across) + 0.5) / down * (plane.high[1] - plane.low[1]);
      const eta = theta.map((t) => t[0] * x + t[1] * y + t[2]);
      const most = Math.max(...eta), best = eta.indexOf(most);
      const p = 1 / eta.reduce((sum, e) => sum + Math.exp(e - most), 0);
      const rect = group.children[cell];
      rect.setAttribute("class", "cell c" + (best % 8));
      rect.setAttribute("fill-opacity", (0.04 + 0.4 * (p - 1 / eta.length) / (1 - 1 / eta.length)).toFixed(3));
    }
  }

  function training(place) {
    const step = data.training.steps[place];
    at("training-number").textContent = step.step;
    for (const field of ["objective", "kkt", "excess"]) {
      const reading = at("training-" + field);
      reading.textContent = told(step[field], field === "objective" ? 6 : 3);
      if (step[field] !== null) reading.dataset.value = step[field];
    }
    const marker = at("training-marker"), steps = data.training.steps;
    if (marker) {
      const left = Number(marker.dataset.left), right = Number(marker.dataset.right);
      const x = left + step.step / steps[steps.length - 1].step * (right - left);
      marker.setAttribute("d", marker.getAttribute("d").replace(/^M[^ ]+/, "M" + x.toFixed(1)));
    }
    const plane = data.training.boundary, bars = data.training.bars;
    if (plane && plane.states) {
      const state = plane.states[place], gradient = at("training-gradient");
      at("training-boundary").setAttribute("d", state.line);
      ["x1", "y1", "x2", "y2"].forEach((name, j) => gradient.setAttribute(name, state.gradient[j]));
    } else if (plane) {
      surface(plane, plane.theta[place]);
    } else if (bars) {
      at("training-bars").querySelectorAll(".fill").forEach((fill, j) => {
        const value = bars.values[place][j], half = 50 / bars.reach;
        fill.style.left = (50 + Math.min(value, 0) * half).toFixed(2) + "%";
        fill.style.width = (Math.abs(value) * half).toFixed(2) + "%";
        fill.className = "fill " + (value > 0 ? "plus" : "minus");
        fill.dataset.value = value;
      });
    }
  }

  const stepSlider = at("training-step");
  stepSlider.addEventListener("input", () => training(Number(stepSlider.value)));
  training(Number(stepSlider.value));

  // -- threshold

  const t = data.threshold;
  if (t) {
    const slider = at("threshold-slider");
    const cell = (name) => document.querySelector(`[data-cell=${name}]`);
    const rate = (name, part, whole) => {
      document.querySelector(`[data-rate=${name}]`).textContent = whole > 0 ? (100 * part / whole).toFixed(1) + " %" : "–";
    };
    const cost = (name) => {
      const value = Number(at("cost-" + name).value);
      return Number.isFinite(value) && value >= 0 ? value : 0;
    };
    let shown = null;

    const counts = (place) => ({
      tp: t.true_positives[place], fp: t.false_positives[place],
      fn: t.positives - t.true_positives[place], tn: t.negatives - t.false_positives[place],
    });

    function costs() {
      const alarm = cost("alarm"), miss = cost("miss"), all = t.positives + t.negatives;
      let best = 0, most = 0;
      const values = t.true_positives.map((_, place) => {
        const c = counts(place), value = c.fp * alarm + c.fn * miss;
        most = Math.max(most, value);
        return value;
      });
      values.forEach((value, place) => { if (value < values[best]) best = place; });
      const stride = Math.max(1, Math.floor(t.parts / 500));
      const spot = (place) => (8 + place / t.parts * 464).toFixed(1) + "," + (100 - (most ? values[place] / most : 0) * 90).toFixed(1);
      let d = "M" + spot(0);
      for (let place = stride; place <= t.parts; place += stride) d += " " + spot(place);
      document.querySelector("#cost-curve .curve").setAttribute("d", d);
      const x = (8 + shown.threshold * 464).toFixed(1);
      at("cost-marker").setAttribute("d", `M${x} 6V104`);
      const here = shown.counts.fp * alarm + shown.counts.fn * miss;
      const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });
      at("threshold-cost").textContent =
        `At this threshold the errors cost ${number(here)} in all, ${told(here / all, 3)} a row. ` +
        `The lowest cost is ${number(values[best])}, at ${best / t.parts}.`;
      at("cost-best").dataset.place = best;
    }

    function show(threshold, c) {
      shown = { threshold, counts: c };
      at("threshold-number").textContent = String(threshold);
      for (const name of ["tn", "fp", "fn", "tp"]) {
        digits(cell(name), c[name]);
        cell(name).dataset.value = c[name];
      }
      rate("accuracy", c.tp + c.tn, t.positives + t.negatives);
      rate("recall", c.tp, t.positives);
      rate("precision", c.tp, c.tp + c.fp);
      rate("alarms", c.fp, t.negatives);
      costs();
    }

    const move = () => {
      const place = Math.round(Number(slider.value) * t.parts);
      show(place / t.parts, counts(place));
    };
    slider.addEventListener("input", move);
    at("cost-alarm").addEventListener("input", costs);
    at("cost-miss").addEventListener("input", costs);
    at("cost-best").addEventListener("click", () => {
      slider.value = Number(at("cost-best").dataset.place) / t.parts;
      move();
    });
    // what the page came with is exact also where the threshold asked for lies between two stops
    const given = {};
    for (const name of ["tn", "fp", "fn", "tp"]) given[name] = Number(cell(name).dataset.value);
    show(t.start, given);
  }

  // -- contents, and paper

  const links = new Map([...document.querySelectorAll("nav.side a")].map((link) => [link.hash.slice(1), link]));
  if ("IntersectionObserver" in window) {
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id).setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -70% 0px" });
    document.querySelectorAll("main > section").forEach((section) => watcher.observe(section));
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details.mistake, #encoding details").forEach((d) => { d.open = true; }));
})();
