// Draw the figures from the JSON in the page with Chart.js: tooltips by mouse, touch and arrow keys, cells that can be hidden, light and dark.
const data = JSON.parse(document.getElementById("figure-data").textContent);
const hidden = new Set(), charts = [];
const SHAPES = ["circle", "rect", "triangle", "rectRot"];
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const own = (panel, place) => `g${panel.group}c${place}`;
const isShown = (panel, place) => place === undefined || !hidden.has(own(panel, place));

function axis(given, extra) {
  const steps = given.title === "optimizer steps", whole = steps ? { precision: 0 } : {};
  return {
    type: given.log ? "logarithmic" : "linear", min: given.min, max: given.max, grace: given.log || steps || given.max !== undefined ? 0 : "5%",
    title: { display: Boolean(given.title), text: given.title, color: colour("soft") },
    grid: { color: colour("line") }, border: { color: colour("soft") },
    ticks: { color: colour("soft"), maxRotation: 0, autoSkipPadding: 12, ...whole },
    ...(given.ticks && { afterBuildTicks: scale => { scale.ticks = given.ticks.map(value => ({ value })); } }), ...extra,
  };
}

function dataset(panel, series) {
  const ink = colour(series.colour ?? (series.quiet ? "soft" : `cell-${series.cell % 8}`)) + (series.faint ? "55" : "");  // A third opaque.
  const rim = 6 + 1.5 * Math.min(series.cell ?? 0, 4);  // The first cell is drawn on top: of two at one place the other keeps a rim.
  const mute = Boolean(series.quiet || series.faint);
  const points = series.points.filter(point => isShown(panel, point.cell));
  return {
    label: series.label ?? "", data: points, order: panel.kind === "line" ? -(series.cell ?? 0) : 0,  // Dashes on top of the first, solid line.
    borderColor: ink, backgroundColor: ink, quiet: mute,
    pointStyle: SHAPES[(series.cell ?? 0) % SHAPES.length], showLine: Boolean(series.line),
    radius: series.quiet || series.dots === false ? 0 : series.faint ? 2 : panel.kind === "scatter" ? item => item.raw?.size ?? rim : 4,
    hoverRadius: series.quiet ? 0 : series.faint ? 2 : rim + 2, hitRadius: mute ? 0 : 14,
    borderWidth: panel.kind === "bar" || series.faint ? 0 : series.quiet && !series.solid ? 1 : 2, borderDash: series.solid ? [] : series.quiet ? [2, 4] : panel.kind === "line" ? DASHES[series.cell % 4] : [],
    errorBarColor: panel.kind === "bar" ? colour("ink") : ink, errorBarWhiskerColor: panel.kind === "bar" ? colour("ink") : ink,
    errorBarLineWidth: 1.5, errorBarWhiskerLineWidth: 1.5, errorBarWhiskerSize: 8,
    maxBarThickness: 56, categoryPercentage: Math.min(0.8, 0.1 + 0.1 * (panel.categories ?? []).length),
  };
}

function config(panel) {
  const bar = panel.kind === "bar";
  const labels = (panel.categories ?? []).filter(one => isShown(panel, one.cell)).map(one => one.text);
  return {
    type: { bar: "barWithErrorBars", line: "line", scatter: "scatterWithErrorBars" }[panel.kind],
    data: { labels, datasets: panel.series.filter(one => isShown(panel, one.cell)).map(one => dataset(panel, one)) },
    options: {
      animation: false, responsive: true, maintainAspectRatio: false, locale: "en",
      interaction: { mode: panel.kind === "line" ? "index" : "nearest", intersect: panel.kind !== "line" },
      layout: { padding: { top: 4, right: 8 } },
      scales: bar
        ? { x: { grid: { display: false }, ticks: { color: colour("ink"), autoSkip: false } }, y: axis(panel.y, {}) }
        : { x: axis(panel.x, { type: "linear" }), y: axis(panel.y, {}) },
      plugins: {
        legend: { display: bar && panel.series.some(one => one.colour), labels: { color: colour("ink"), boxWidth: 12 } },
        tooltip: {
          backgroundColor: colour("ink"), titleColor: colour("paper"), bodyColor: colour("paper"), displayColors: true, boxPadding: 4,
          filter: item => !item.dataset.quiet && item.raw.tip?.length > 0,
          callbacks: {
            title: items => items.length === 0 ? "" : panel.kind === "line" ? `step ${items[0].raw.x}` : bar ? items[0].label : items[0].dataset.label,
            label: item => panel.kind === "line" || bar && !item.dataset.label.startsWith("gain")
              ? [`${item.dataset.label}: ${item.raw.tip[0]}`, ...item.raw.tip.slice(1)]
              : item.chart.tooltip.dataPoints?.length > 1 ? `${item.dataset.label}: ${item.raw.tip.join(", ")}` : item.raw.tip,
          },
        },
      },
    },
  };
}

// All points of a chart that have something to say, from left to right.
function stops(chart) {
  const found = chart.data.datasets.flatMap((one, datasetIndex) =>
    one.quiet ? [] : one.data.map((point, index) => ({ datasetIndex, index, point })).filter(stop => stop.point.tip?.length));
  return found.sort((a, b) => (a.point.x ?? a.index) - (b.point.x ?? b.index) || a.datasetIndex - b.datasetIndex);
}

function step(one, way) {
  const all = stops(one.chart);
  if (all.length === 0) return;
  one.at = Math.min(Math.max((one.at ?? (way > 0 ? -1 : all.length)) + way, 0), all.length - 1);
  const { datasetIndex, index, point } = all[one.at];
  const element = one.chart.getDatasetMeta(datasetIndex).data[index];
  one.chart.setActiveElements([{ datasetIndex, index }]);
  one.chart.tooltip.setActiveElements([{ datasetIndex, index }], { x: element.x, y: element.y });
  one.chart.update("none");
  const where = one.panel.kind === "line" ? `step ${point.x}, ` : one.panel.kind === "bar" ? `${one.chart.data.labels[index]}, ` : "";
  document.getElementById("read").textContent = `${where}${one.chart.data.datasets[datasetIndex].label}: ${point.tip.join(", ")}`;
}

function draw(one) {
  const { options, data: drawn } = config(one.panel);
  one.at = undefined;
  Object.assign(one.chart, { options });
  one.chart.data = drawn;
  one.chart.update("none");
}

Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
Chart.defaults.font.size = 13;
for (const canvas of document.querySelectorAll("canvas[data-figure]")) {
  const panel = data[canvas.dataset.figure][Number(canvas.dataset.panel)];
  const one = { panel, chart: new Chart(canvas, config(panel)) };
  charts.push(one);
  canvas.addEventListener("keydown", event => {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (way) { event.preventDefault(); step(one, way); }
  });
  canvas.addEventListener("blur", () => { one.at = undefined; one.chart.setActiveElements([]); one.chart.tooltip.setActiveElements([], { x: 0, y: 0 }); one.chart.update("none"); });
}

// A cell is hidden in every figure of its group.
for (const box of document.querySelectorAll("input[data-toggle]")) {
  box.checked = true;
  box.addEventListener("change", () => {
    if (box.checked) hidden.delete(box.dataset.toggle); else hidden.add(box.dataset.toggle);
    for (const same of document.querySelectorAll(`[data-toggle="${box.dataset.toggle}"]`)) same.checked = box.checked;
    charts.filter(one => box.dataset.toggle.startsWith(`g${one.panel.group}c`)).forEach(draw);
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(draw));
