// One plot: a group of curves in uPlot, with a legend of buttons that show the values under the cursor.
"use strict";

const HEIGHT = 240;
const DASHES = [[], [8, 4], [2, 3]]; // of curves beyond the number of colours
const SPREAD = 50; // largest over median size, from which on a linear axis would flatten most of a curve

function cssVariable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A number in few characters.
function short(value) {
  if (value == null || value === "") return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

// In embedded values null interrupts the line and "" is no value; uPlot takes undefined for the latter.
function withoutBlanks(values) {
  return values.map((value) => (value === "" ? undefined : value));
}

// The moving average of a curve over about this share of its values, debiased as Adam's are, so that it does
// not start at 0. Where rows were left out, it is taken over the means of the buckets, because their lowest and
// highest values say little of what lies between.
function smoothed(values, means, ends, share) {
  const count = (means ?? values).filter((value) => typeof value === "number").length;
  const decay = Math.max(0, 1 - 1 / (share * count));
  const smooth = new Array(values.length);
  let sum = 0;
  let weight = 0;
  const take = (value, row) => {
    if (typeof value !== "number") return;
    sum = decay * sum + (1 - decay) * value;
    weight = decay * weight + (1 - decay);
    smooth[row] = sum / weight;
  };
  if (means) means.forEach((mean, bucket) => take(mean, ends[bucket]));
  else values.forEach(take);
  values.forEach((value, row) => {
    if (value === null) smooth[row] = null;
  });
  return smooth;
}

class Plot {
  // figure: the element to fill; data: the plot's part of the embedded data; view: zoom and smoothing, which
  // all plots share.
  constructor(figure, data, marks, view) {
    this.figure = figure;
    this.data = data;
    this.marks = marks;
    this.view = view;
    this.steps = data.steps;
    this.curves = data.curves.map((curve) => {
      return { ...curve, values: withoutBlanks(curve.values), shown: true };
    });
    const numbers = this.curves.flatMap((curve) => curve.values).filter((value) => typeof value === "number");
    const sizes = numbers.map(Math.abs).filter((size) => size > 0).sort((a, b) => a - b);
    const median = sizes[Math.floor(sizes.length / 2)] ?? 1;
    const largest = data.stacked ? 0 : sizes[sizes.length - 1] ?? 0;
    // Logarithms need positive values; otherwise the axis is linear around 0.
    this.isPositive = numbers.every((value) => value > 0);
    this.isLog = largest > SPREAD * median || (data.isLog && largest > 0);
    this.spansDecades = this.isLog || largest > 10 * (this.isPositive ? sizes[0] : median);
    this.linearBelow = 10 ** Math.floor(Math.log10(median));
    this.uplot = null;
    this.makeControls();
  }

  makeControls() {
    const caption = this.figure.querySelector("figcaption");
    this.step = document.createElement("span");
    this.step.className = "step";
    caption.append(this.step);
    if (this.spansDecades) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "log";
      button.setAttribute("aria-label", `Logarithmic axis of ${this.data.title}`);
      button.setAttribute("aria-pressed", String(this.isLog));
      button.addEventListener("click", () => {
        this.isLog = !this.isLog;
        button.setAttribute("aria-pressed", String(this.isLog));
        this.draw();
      });
      caption.append(button);
    }

    this.canvas = this.figure.querySelector(".canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "group");
    this.canvas.setAttribute(
      "aria-label",
      `${this.data.title}: left and right move the cursor, plus and minus zoom, escape shows all steps.`,
    );
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));

    const legend = document.createElement("div");
    legend.className = "legend";
    legend.setAttribute("role", "group");
    legend.setAttribute("aria-label", `Curves of ${this.data.title}`);
    for (const curve of this.curves) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      curve.swatch = document.createElement("i");
      curve.output = document.createElement("b");
      button.append(curve.swatch, curve.name, " ", curve.output);
      button.addEventListener("click", () => {
        curve.shown = !curve.shown;
        button.setAttribute("aria-pressed", String(curve.shown));
        this.draw();
      });
      legend.append(button);
    }
    this.canvas.after(legend);
    // For those who hear the page: values at the cursor, while it is moved by keys.
    this.spoken = document.createElement("p");
    this.spoken.className = "spoken";
    this.spoken.setAttribute("aria-live", "polite");
    legend.after(this.spoken);
    this.showValues(null);
  }

  // Draws everything anew; also how options that uPlot fixes at the start are changed.
  draw() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    this.uplot?.destroy();
    const colours = cssVariable("--colours").split(" ");
    this.curves.forEach((curve, place) => {
      curve.colour = colours[place % colours.length];
      curve.dash = DASHES[Math.floor(place / colours.length) % DASHES.length];
      curve.swatch.style.borderTopColor = curve.colour;
      curve.swatch.style.borderTopStyle = curve.dash.length ? "dashed" : "solid";
    });
    const { series, values } = this.data.stacked ? this.stack() : this.lines();
    const text = cssVariable("--text");
    const grid = { stroke: cssVariable("--line"), width: 1 };
    const font = "12px system-ui, sans-serif";
    this.uplot = new uPlot(
      {
        width,
        height: HEIGHT,
        legend: { show: false },
        // A stack is opaque; grid and marks stay visible in front of it.
        drawOrder: this.data.stacked ? ["series", "axes"] : ["axes", "series"],
        scales: {
          x: { time: false, range: () => this.view.range() },
          y: this.data.stacked ? { range: [0, 1] } : this.verticalScale(),
        },
        axes: [
          { stroke: text, grid, ticks: grid, font, size: 30, space: 60, values: (_, all) => all.map(short) },
          {
            stroke: text, grid, ticks: grid, font, space: 30,
            size: (_, all) => 18 + 7 * Math.max(3, ...(all ?? []).map((label) => label?.length ?? 0)),
            values: (_, all) => all.map((value) => (value == null ? null : short(value))),
          },
        ],
        cursor: {
          sync: {
            key: "steps",
            scales: ["x", null],
            // The zoom is shared through the view, also with plots that are not drawn yet.
            filters: { pub: (type) => type === "mousemove" || type === "mouseleave" },
          },
          drag: { x: true, y: false, setScale: false },
          points: { size: 7 },
          y: false,
          bind: { dblclick: () => () => this.view.zoom(null) },
        },
        series: [{}, ...series],
        hooks: {
          draw: [(plot) => this.drawMarks(plot)],
          setSelect: [(plot) => this.onSelect(plot)],
          setCursor: [(plot) => this.showValues(plot.cursor.idx ?? null)],
        },
      },
      [this.steps, ...values],
      this.canvas,
    );
    this.followTouches(this.uplot.over);
  }

  verticalScale() {
    if (!this.isLog) return {};
    return this.isPositive ? { distr: 3 } : { distr: 4, asinh: this.linearBelow };
  }

  lines() {
    const share = this.view.smoothing;
    const raw = this.curves.map((curve) => ({
      label: curve.name, show: curve.shown, stroke: curve.colour, dash: curve.dash,
      width: share ? 1 : 1.75, alpha: share ? 0.3 : 1,
      points: { size: 5, width: 1, fill: curve.colour },
    }));
    const values = this.curves.map((curve) => curve.values);
    if (!share) return { series: raw, values };
    const smooth = this.curves.map((curve) => ({
      label: curve.name, show: curve.shown, stroke: curve.colour, dash: curve.dash, width: 2,
      points: { show: false },
    }));
    const ends = this.data.bucketEnds;
    this.smooth = this.curves.map((curve) => smoothed(curve.values, curve.means, ends, share));
    return { series: [...raw, ...smooth], values: [...values, ...this.smooth] };
  }

  // Sums from the first curve on; the largest is drawn first, and each later one over it.
  stack() {
    const share = this.view.smoothing;
    let total = this.steps.map(() => 0);
    const series = [];
    const values = [];
    for (const curve of this.curves) {
      if (curve.shown) {
        const parts = share ? smoothed(curve.values, null, null, share) : curve.values;
        total = total.map((sum, row) => sum + parts[row]);
      }
      series.unshift({
        label: curve.name, show: curve.shown, stroke: curve.colour, fill: curve.colour, width: 1,
        points: { show: this.steps.length < 2, size: 6 },
      });
      values.unshift(total);
    }
    return { series, values };
  }

  // A dashed line where a verdict begins, with the number of its card; stronger where it is about this plot.
  drawMarks(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio || 1;
    let free = -Infinity;
    ctx.save();
    ctx.font = `bold ${11 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "top";
    ctx.lineWidth = 1.5 * ratio;
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    for (const mark of [...this.marks].sort((a, b) => a.step - b.step || a.number - b.number)) {
      const x = plot.valToPos(mark.step, "x", true);
      if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
      ctx.globalAlpha = mark.plots.includes(this.data.id) ? 1 : 0.35;
      ctx.strokeStyle = ctx.fillStyle = cssVariable(`--${mark.severity}`);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const label = String(mark.number);
      const left = Math.max(x + 3 * ratio, free);
      const width = ctx.measureText(label).width;
      if (left + width <= bbox.left + bbox.width) {
        ctx.fillText(label, left, bbox.top + 2 * ratio);
        free = left + width + 5 * ratio;
      }
    }
    ctx.restore();
  }

  // The values of a row, each the newest up to there; without a row those at the end.
  valuesAt(row) {
    const last = row ?? this.steps.length - 1;
    const newest = (values) => {
      for (let place = last; place >= 0; place--) {
        if (typeof values[place] === "number") return values[place];
      }
      return null;
    };
    return this.curves.map((curve, place) => {
      const value = short(newest(curve.values));
      const smooth = this.view.smoothing && !this.data.stacked && this.smooth;
      return smooth ? `${value}, smooth ${short(newest(smooth[place]))}` : value;
    });
  }

  showValues(row) {
    this.step.textContent = `step ${this.steps[row ?? this.steps.length - 1] ?? "–"}`;
    this.valuesAt(row).forEach((text, place) => {
      this.curves[place].output.textContent = text;
    });
  }

  onSelect(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    const range = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.view.zoom(range);
  }

  onKey(event) {
    const plot = this.uplot;
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const [from, to] = this.view.range();
    const rows = [...this.steps.keys()].filter((row) => this.steps[row] >= from && this.steps[row] <= to);
    const row = plot.cursor.idx;
    const middle = row == null ? (from + to) / 2 : this.steps[row];
    const place = rows.indexOf(row);
    const stride = event.shiftKey ? 10 : 1;
    const go = {
      ArrowLeft: () => this.moveTo(rows[place < 0 ? rows.length - 1 : Math.max(0, place - stride)]),
      ArrowRight: () => this.moveTo(rows[place < 0 ? 0 : Math.min(rows.length - 1, place + stride)]),
      Home: () => this.moveTo(rows[0]),
      End: () => this.moveTo(rows[rows.length - 1]),
      "+": () => this.view.zoom([middle - (middle - from) / 2, middle + (to - middle) / 2]),
      "-": () => this.view.zoom([middle - (middle - from) * 2, middle + (to - middle) * 2]),
      Escape: () => this.view.zoom(null),
    };
    go["="] = go["+"]; // the same key without shift
    if (!go[event.key]) return;
    event.preventDefault();
    go[event.key]();
  }

  moveTo(row) {
    if (row === undefined) return;
    const left = this.uplot.valToPos(this.steps[row], "x");
    this.uplot.setCursor({ left, top: HEIGHT / 3 }, true, true);
    const values = this.valuesAt(row).map((text, place) => `${this.curves[place].name} ${text}`);
    this.spoken.textContent = `step ${this.steps[row]}: ${values.join(", ")}`;
  }

  // uPlot listens to a mouse alone. A finger that moves sideways selects steps, up and down it scrolls.
  followTouches(over) {
    let start = null;
    const position = (event) => {
      const box = over.getBoundingClientRect();
      return Math.min(Math.max(event.clientX - box.left, 0), box.width);
    };
    over.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse") start = position(event);
    });
    over.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const now = position(event);
      this.uplot.setCursor({ left: now, top: HEIGHT / 3 }, true, true);
      const [left, width] = [Math.min(start, now), Math.abs(now - start)];
      this.uplot.setSelect({ left, top: 0, width, height: over.clientHeight }, false);
    });
    over.addEventListener("pointerup", () => {
      if (start !== null && this.uplot.select.width >= 12) this.onSelect(this.uplot);
      start = null;
    });
    over.addEventListener("pointercancel", () => {
      start = null;
      this.uplot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    });
  }
}
