// The page: all plots with the zoom and smoothing that they share, and the slider over sample grids.
"use strict";

const FEW = 6; // plots that are drawn at once

// What all plots share.
class View {
  constructor(plots) {
    const steps = plots.flatMap((plot) => [plot.steps[0], plot.steps[plot.steps.length - 1]]);
    const known = steps.filter((step) => step !== undefined);
    this.first = known.length ? known.reduce((a, b) => Math.min(a, b)) : 0;
    this.last = known.length ? known.reduce((a, b) => Math.max(a, b)) : 1;
    if (this.first === this.last) this.last += 1; // of a single row
    this.zoomed = null;
    this.smoothing = 0; // share of the values over which curves are averaged
    this.plots = [];
    this.onZoom = () => {};
  }

  range() {
    return this.zoomed ?? [this.first, this.last];
  }

  // Shows the steps of a range in all plots; null: all steps.
  zoom(range) {
    if (range) {
      const [from, to] = [Math.max(range[0], this.first), Math.min(range[1], this.last)];
      if (to - from < 2 && to - from < (this.last - this.first) / 2) return; // nothing lies within
      range = from <= this.first && to >= this.last ? null : [from, to];
    }
    this.zoomed = range;
    const [min, max] = this.range();
    for (const plot of this.plots) plot.uplot?.setScale("x", { min, max });
    this.onZoom();
  }

  smooth(share) {
    this.smoothing = share;
    this.redraw();
  }

  redraw() {
    for (const plot of this.plots) {
      if (!plot.uplot) continue;
      plot.draw();
      plot.showValues(null);
    }
  }
}

function makePlots() {
  const data = JSON.parse(document.getElementById("curves").textContent);
  const view = new View(data.plots);
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const { uplot, canvas } = plotOf.get(target);
      if (uplot && canvas.clientWidth) uplot.setSize({ width: canvas.clientWidth, height: HEIGHT });
    }
  });
  const draw = (canvas) => {
    plotOf.get(canvas).draw();
    resized.observe(canvas);
  };
  // Plots are drawn once they are near the screen, unless there are few.
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "600px" },
  );
  const plotOf = new Map();
  for (const part of data.plots) {
    const figure = document.getElementById(part.id);
    if (!figure) continue;
    const plot = new Plot(figure, part, data.marks, view);
    plotOf.set(plot.canvas, plot);
    view.plots.push(plot);
    if (data.plots.length <= FEW) draw(plot.canvas);
    else near.observe(plot.canvas);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.redraw());
  addEventListener("beforeprint", () => {
    for (const plot of view.plots) if (!plot.uplot) draw(plot.canvas);
  });
  return view;
}

function makeControls(view) {
  const controls = document.getElementById("controls");
  if (!view.plots.length) return;
  const label = document.createElement("label");
  const slider = document.createElement("input");
  const amount = document.createElement("output");
  Object.assign(slider, { type: "range", min: "0", max: "20", step: "0.5", value: "0" });
  amount.textContent = "off";
  label.append("Smoothing ", slider, amount);
  slider.addEventListener("input", () => {
    const percent = Number(slider.value);
    amount.textContent = percent ? `over ${percent}% of the run` : "off";
    slider.setAttribute("aria-valuetext", amount.textContent);
    view.smooth(percent / 100);
  });
  const all = document.createElement("button");
  all.type = "button";
  all.textContent = "All steps";
  all.disabled = true;
  all.addEventListener("click", () => view.zoom(null));
  const hint = document.createElement("span");
  hint.className = "hint";
  const idle = "Drag in a plot to zoom, double click for all steps. Numbered lines: where a verdict begins.";
  hint.textContent = idle;
  view.onZoom = () => {
    all.disabled = !view.zoomed;
    hint.textContent = view.zoomed ? `Steps ${view.zoomed.map(Math.round).join(" to ")}.` : idle;
  };
  controls.append(label, all, hint);
}

// One sample grid at a time, chosen by a slider over their steps.
function makeSampleSlider() {
  const grid = document.querySelector("#samples .grid");
  const figures = grid ? [...grid.querySelectorAll("figure")] : [];
  if (figures.length < 2) return;
  const label = document.createElement("label");
  const slider = document.createElement("input");
  const output = document.createElement("output");
  const last = figures.length - 1;
  Object.assign(slider, { type: "range", min: "0", max: String(last), step: "1", value: String(last) });
  const show = () => {
    const chosen = Number(slider.value);
    figures.forEach((figure, place) => {
      figure.hidden = place !== chosen;
    });
    output.textContent = figures[chosen].querySelector("figcaption").textContent.split(";")[0];
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  slider.addEventListener("input", show);
  // The keys work on the picture, too.
  grid.tabIndex = 0;
  grid.setAttribute("role", "group");
  grid.setAttribute("aria-label", "Sample grids; left and right show other steps.");
  grid.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || event.target !== grid) return;
    event.preventDefault();
    slider.value = String(Number(slider.value) + move);
    show();
  });
  label.append("Samples of ", slider, output);
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.append(label);
  grid.before(bar);
  show();
}

makeSampleSlider();
makeControls(makePlots());
