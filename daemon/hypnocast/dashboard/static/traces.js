// The signals themselves, as they come: the last 30 s of every channel, moving.

import { by, el, mark, say } from "./dom.js";
import { lasting } from "./words.js";

const SHOWN_S = 30;
const ROW = 64;
const OLD_S = 4;
/** Frames a second: smooth enough for eyes, cheap enough for a night. */
const FRAME_MS = 66;

/** Draws what `add` is given; `now()` is the server's clock in ms. */
export function movingTraces(now) {
  const canvas = by("traces");
  const panel = by("traces-panel");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let seconds = [];
  let names = [];
  /** Channel → the middle of what is shown: recorders have offsets of many mV. */
  let middles = new Map();
  let drawn = 0;
  /** How far the newest second lags behind the clock: what moves is kept that far behind. */
  let lag = null;
  let came = 0;
  let real = false;

  function add(news) {
    came = performance.now();
    real = news.at(-1).source === "live";
    for (const second of news) {
      const at = Date.parse(second.start) / 1000;
      const end = at + second.seconds;
      const behind = now() / 1000 - end;
      lag = lag === null || Math.abs(behind - lag) > 5 ? behind : Math.max(behind, lag - 0.02);
      seconds.push({ at, end, channels: second.channels });
    }
    const newest = seconds.at(-1).end;
    seconds = seconds.filter((second) => second.end > newest - SHOWN_S - 2 && second.end <= newest);
    panel.hidden = false;
    nameRows();
    middles = new Map(names.map((name) => [name, middle(name)]));
    if (still.matches) draw();
  }

  function nameRows() {
    const found = [...new Set(seconds.flatMap((second) => Object.keys(second.channels)))];
    if (found.join() === names.join()) return;
    names = found;
    by("trace-names").replaceChildren(...names.map((name) => el("span", {}, name)));
    canvas.style.height = `${names.length * ROW}px`;
    mark(canvas, "aria-label", `Signals of the last 30 seconds, moving: ${names.join(", ")}`);
  }

  function middle(name) {
    const values = seconds.flatMap(({ channels }) => channels[name]
      ? channels[name].low.map((low, place) => (low === null ? null : (low + channels[name].high[place]) / 2)) : [])
      .filter((value) => value !== null).sort((a, b) => a - b);
    return values.length ? values[values.length >> 1] : 0;
  }

  function draw() {
    const ratio = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height || seconds.length === 0) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const ink = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const row = height / names.length;
    const right = still.matches ? seconds.at(-1).end : now() / 1000 - (lag ?? 0) - 1;
    const x = (at) => width - ((right - at) / SHOWN_S) * width;
    const scale = (row / 2) / (10 * Number(by("traces-scale").value));
    ink.clearRect(0, 0, width, height);
    ink.fillStyle = style.getPropertyValue("--line").trim();
    for (let at = Math.ceil(right - SHOWN_S); at <= right; at += 1) {
      ink.fillRect(Math.round(x(at)), 0, at % 5 === 0 ? 2 : 1, height);
    }
    ink.fillStyle = style.getPropertyValue("--text").trim();
    names.forEach((name, place) => {
      const centre = row * (place + 0.5);
      const zero = middles.get(name);
      for (const { at, end, channels } of seconds) {
        const columns = channels[name];
        if (!columns) continue;
        const wide = (end - at) / columns.low.length;
        columns.low.forEach((low, column) => {
          if (low === null) return;
          const left = x(at + column * wide);
          const top = Math.max(centre - row, centre - (columns.high[column] - zero) * scale);
          const bottom = Math.min(centre + row, centre - (low - zero) * scale);
          ink.fillRect(left, top, Math.max(ratio, x(at + (column + 1) * wide) - left), Math.max(ratio, bottom - top));
        });
      }
    });
    mark(canvas, "data-columns", seconds.length * (seconds.at(-1).channels[names[0]]?.low.length ?? 0));
  }

  function frame(time) {
    requestAnimationFrame(frame);
    if (panel.hidden || still.matches || time - drawn < FRAME_MS) return;
    drawn = time;
    draw();
  }
  requestAnimationFrame(frame);
  setInterval(() => {
    if (seconds.length === 0) return;
    // Only of what is live do its times say how old it is.
    const age = real ? now() / 1000 - seconds.at(-1).end : (performance.now() - came) / 1000;
    say(by("traces-age"), age > OLD_S ? `Nothing has come for ${lasting(age)}.` : "");
    panel.classList.toggle("old", age > OLD_S);
  }, 1000);

  return { add };
}
