// The night in charts with one axis of time: hypnogram, hypnodensity, spectrogram, band power.

import { by, el, mark, say } from "./dom.js";
import { drawSpectrogram, readSpectrum, spectrumLegend, spectrumWords } from "./spectra.js";
import { LEVELS, PAGE_S, REASONS, STAGES, STAGE_WORDS, hm, lasting } from "./words.js";

/* global uPlot */

const KIND = { lights_off: "☾", lights_on: "☀", notice: "⚑", stream: "⇄" };
const SHORTEST_S = 3600;
const STACK = ["N3", "N2", "N1", "R", "W"];

/** Draws a night; `choose(epoch)` is called where somebody clicked. */
export function nightCharts(choose) {
  let night = null;
  let selected = null;
  let spectrum = null;
  /** What was read of the broker's last message. */
  let seen = null;
  const plots = new Map();
  const start = () => Date.parse(night.start) / 1000;
  const at = (epoch) => start() + PAGE_S * epoch;

  function options(node, height, more) {
    return {
      width: node.clientWidth || 600, height, padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { show: false }, sync: { key: "night" } },
      scales: { x: { time: true, range: () => range() }, ...more.scales },
      axes: [
        { stroke: () => colour("--soft"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false },
          font: font(), size: more.bottom, gap: 4, space: 70,
          values: more.bottom > 10 ? (_, splits) => splits.map((split) => hm(new Date(split * 1000))) : () => [] },
        { ...more.axis, stroke: () => colour("--soft"), ticks: { show: false }, font: font(), size: 44, gap: 6 },
      ],
      series: more.series ?? [{}, { paths: () => null, points: { show: false } }],
      hooks: {
        setCursor: [(plot) => more.hover?.(plot)],
        draw: [(plot) => {
          // uPlot remembers what it last set in the context; it must find it as it was.
          plot.ctx.save();
          more.draw(plot);
          plot.ctx.restore();
        }],
        ready: [(plot) => plot.over.addEventListener("click", () => {
          const epoch = Math.floor((plot.posToVal(plot.cursor.left, "x") - start()) / PAGE_S);
          if (night && epoch >= 0 && epoch < night.epochs) choose(epoch);
        })],
      },
    };
  }

  const range = () => (night ? [start(), Math.max(at(night.epochs), start() + SHORTEST_S)] : [0, SHORTEST_S]);

  const grid = { stroke: () => colour("--line"), width: 1 };
  const kinds = {
    hypnogram: () => ({
      scales: { y: { range: () => [-0.6, 5.5] } }, bottom: 8, draw: drawHypnogram, data,
      axis: { splits: () => [0, 1, 2, 3, 4], values: (_, splits) => splits.map((split) => LEVELS[4 - split]), grid },
    }),
    density: () => ({
      scales: { y: { range: () => [0, 1] } }, bottom: 26, draw: drawDensity, data,
      axis: { splits: () => [0, 0.5, 1], values: (_, splits) => splits.map((split) => `${100 * split} %`), grid: { show: false } },
    }),
    spectrogram: () => ({
      scales: { y: { range: () => [0, 30.25] } }, bottom: 8, draw: drawSpectra, data, hover,
      axis: { splits: () => [0, 10, 20, 30], values: (_, splits) => splits.map((split) => (split ? `${split} Hz` : "")), grid: { show: false } },
    }),
    bands: () => ({
      scales: { y: { range: bandRange } }, bottom: 26, draw: drawBands, data: bandData, hover,
      axis: { splits: (plot) => tens(plot.scales.y), values: (_, splits) => splits.map((split) => `${10 ** (split / 10)}`), grid },
      series: [{}, ...seen.names.map((name) => ({ stroke: () => colour(`--${name}`), width: 1.5, points: { show: false }, spanGaps: false }))],
    }),
  };

  /** Make or change a chart; what is not shown has no size and is not made. */
  function refresh(name, fresh) {
    const node = by(name);
    if (!node.clientWidth) return;
    const plot = plots.get(name);
    if (!plot) {
      const kind = kinds[name]();
      plots.set(name, Object.assign(new uPlot(options(node, node.clientHeight, kind), kind.data(), node), { read: kind.data }));
    } else if (fresh) plot.setData(plot.read());
    else plot.redraw();
  }

  const bandData = () => (seen ? [Array.from({ length: seen.pages }, (_, page) => at(seen.first + page + 0.5)), ...seen.lines] : [[], []]);

  function bandRange() {
    const values = seen ? seen.lines.flat().filter((value) => value !== null) : [];
    if (values.length === 0) return [0, 20];
    const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    return [5 * Math.floor(low / 5), 5 * Math.ceil(high / 5 + 0.2)];
  }

  const tens = ({ min, max }) => Array.from({ length: Math.floor(max / 10) - Math.ceil(min / 10) + 1 }, (_, place) => 10 * (Math.ceil(min / 10) + place));

  function drawSpectra(plot) {
    if (!night || !seen) return;
    const x = (epoch) => plot.valToPos(at(epoch), "x", true);
    withheld(plot, x);
    drawSpectrogram(plot, seen, x);
    selection(plot, x);
  }

  function drawBands(plot) {
    if (!night) return;
    const x = (epoch) => plot.valToPos(at(epoch), "x", true);
    withheld(plot, x);
    selection(plot, x);
  }

  /** Say the values of the page under the cursor, else of the chosen one. */
  function hover(plot) {
    if (!seen) return;
    const { left } = plot?.cursor ?? {};
    const under = left >= 0 ? Math.floor((plot.posToVal(left, "x") - start()) / PAGE_S) : null;
    const last = seen.first + seen.pages - 1;
    say(by("spectrum-words"), spectrumWords(seen, Math.min(under ?? selected ?? last, last)));
  }

  function data() {
    const epochs = night ? night.epochs : 0;
    const x = Array.from({ length: epochs }, (_, epoch) => at(epoch));
    return [x, x.map(() => null)];
  }

  function drawHypnogram(plot) {
    if (!night) return;
    const { ctx } = plot;
    const x = (epoch) => plot.valToPos(at(epoch), "x", true);
    const y = (stage) => plot.valToPos(4 - LEVELS.indexOf(stage), "y", true);
    const thick = Math.max(3, plot.bbox.height / 22);
    withheld(plot, x);
    let before = null;
    for (const run of runsOf(night)) {
      if (run.stage) {
        if (before?.stage) {
          ctx.fillStyle = colour("--soft");
          ctx.globalAlpha = 0.55;
          ctx.fillRect(x(run.first) - 0.5, Math.min(y(before.stage), y(run.stage)), 1, Math.abs(y(before.stage) - y(run.stage)));
          ctx.globalAlpha = 1;
        }
        ctx.fillStyle = colour(`--${run.stage}`);
        ctx.fillRect(x(run.first), y(run.stage) - thick / 2, Math.max(1, x(run.first + run.length) - x(run.first)), thick);
      }
      before = run;
    }
    ctx.fillStyle = colour("--text");
    const under = plot.bbox.top + plot.bbox.height - 3 * devicePixelRatio;
    for (const epoch of night.review) ctx.fillRect(x(epoch), under, Math.max(1, x(epoch + 1) - x(epoch)), 3 * devicePixelRatio);
    marks(plot);
    selection(plot, x);
  }

  function drawDensity(plot) {
    if (!night) return;
    const { ctx, bbox } = plot;
    const x = (epoch) => plot.valToPos(at(epoch), "x", true);
    withheld(plot, x);
    night.probabilities.forEach((shares, epoch) => {
      if (!shares) return;
      const left = Math.floor(x(epoch));
      const width = Math.max(1, Math.floor(x(epoch + 1)) - left);
      let base = bbox.top + bbox.height;
      for (const stage of STACK) {
        const height = (bbox.height * shares[STAGES.indexOf(stage)]) / 1000;
        ctx.fillStyle = colour(`--${stage}`);
        ctx.fillRect(left, base - height, width, height + 0.5);
        base -= height;
      }
    });
    selection(plot, x);
  }

  function withheld({ ctx, bbox }, x) {
    for (const run of runsOf(night)) {
      if (run.status !== "w") continue;
      const left = x(run.first);
      const width = Math.max(2, x(run.first + run.length) - left);
      ctx.save();
      ctx.beginPath();
      ctx.rect(left, bbox.top, width, bbox.height);
      ctx.clip();
      ctx.fillStyle = colour("--hatch");
      ctx.fillRect(left, bbox.top, width, bbox.height);
      ctx.strokeStyle = colour("--hatch-line");
      ctx.lineWidth = devicePixelRatio;
      const step = 7 * devicePixelRatio;
      ctx.beginPath();
      for (let from = left - bbox.height; from < left + width; from += step) {
        ctx.moveTo(from, bbox.top + bbox.height);
        ctx.lineTo(from + bbox.height, bbox.top);
      }
      ctx.stroke();
      ctx.restore();
    }
  }

  function marks({ ctx, bbox, valToPos }) {
    ctx.font = `${13 * devicePixelRatio}px sans-serif`;
    ctx.textBaseline = "top";
    ctx.textAlign = "left";
    for (const { at: when, kind } of night.marks) {
      const left = valToPos(Date.parse(when) / 1000, "x", true);
      if (left < bbox.left || left > bbox.left + bbox.width) continue;
      ctx.fillStyle = colour("--soft");
      ctx.fillRect(left, bbox.top, 1, bbox.height);
      ctx.fillStyle = colour("--text");
      ctx.fillText(KIND[kind] ?? "✎", left + 3, bbox.top + 2);
    }
  }

  function selection({ ctx, bbox }, x) {
    if (selected === null) return;
    ctx.fillStyle = colour("--focus");
    ctx.fillRect(x(selected + 0.5) - devicePixelRatio, bbox.top, 2 * devicePixelRatio, bbox.height);
  }

  new ResizeObserver(() => {
    for (const [name, plot] of plots) {
      const node = by(name);
      if (node.clientWidth && (plot.width !== node.clientWidth || plot.height !== node.clientHeight)) {
        plot.setSize({ width: node.clientWidth, height: node.clientHeight });
      }
    }
  }).observe(by("hypnogram"));

  return {
    show(next, epoch, message) {
      const fresh = next !== night;
      const other = message !== spectrum || next.session !== night?.session;
      night = next;
      selected = epoch;
      if (other) {
        spectrum = message;
        seen = readSpectrum(message, night);
        by("spectra").hidden = !seen;
        if (seen) spectrumLegend(seen);
        if (seen?.names.length + 1 !== plots.get("bands")?.series.length) {
          plots.get("bands")?.destroy();
          plots.delete("bands");
        }
      }
      refresh("hypnogram", fresh);
      refresh("density", fresh);
      if (seen) {
        refresh("spectrogram", fresh || other);
        refresh("bands", fresh || other);
        hover();
      }
      if (fresh) describe(night);
    },
    repaint() {
      for (const plot of plots.values()) plot.redraw();
    },
  };
}

/** Runs of equal pages in a night. */
export function runsOf(night) {
  const found = [];
  night.stages.forEach((stage, epoch) => {
    const status = night.status[epoch];
    const last = found.at(-1);
    if (last && last.stage === stage && (stage || last.status === status)) last.length += 1;
    else found.push({ first: epoch, length: 1, stage, status, reason: night.reasons[epoch] });
  });
  return found;
}

/** The legend of both charts. */
export function legend() {
  return [
    ...LEVELS.map((stage) => el("li", {}, el("span", { class: `swatch fill-${stage}` }), STAGE_WORDS[stage])),
    el("li", {}, el("span", { class: "swatch withheld" }), "withheld"),
    el("li", {}, el("span", { class: "swatch review" }), "for review"),
  ];
}

/** The night as a table, for those whom a chart does not serve. */
export function table(night) {
  const start = Date.parse(night.start);
  const when = (epoch) => hm(new Date(start + epoch * PAGE_S * 1000));
  const rows = runsOf(night).map((run) => el("tr", {},
    el("td", {}, when(run.first)), el("td", {}, when(run.first + run.length)),
    el("td", {}, run.stage ? STAGE_WORDS[run.stage] : run.reason ? `withheld: ${REASONS[run.reason] ?? run.reason}` : "unknown"),
    el("td", {}, lasting(run.length * PAGE_S))));
  const head = ["From", "To", "Stage", "For"].map((name) => el("th", { scope: "col" }, name));
  return el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
}

function describe(night) {
  const minutes = LEVELS.map((stage) => [STAGE_WORDS[stage], night.stages.filter((other) => other === stage).length / 2])
    .filter(([, some]) => some).map(([stage, some]) => `${stage} ${some} min`);
  const words = `${night.epochs} pages since ${hm(night.start)}: ${minutes.join(", ") || "none staged"}. The table below has the same.`;
  mark(by("hypnogram"), "aria-label", `Hypnogram. ${words}`);
  mark(by("density"), "aria-label", `Hypnodensity: the probabilities of every page. ${words}`);
}

let colours = { theme: null, known: {} };

function colour(name) {
  const theme = document.documentElement.dataset.theme;
  if (colours.theme !== theme) colours = { theme, known: {} };
  colours.known[name] ??= getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return colours.known[name];
}

const font = () => `13px ${getComputedStyle(document.body).fontFamily}`;
