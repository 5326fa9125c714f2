// The night's spectrum: from the bytes of the broker's message to a picture, lines and words.

import { by, el, mark, say } from "./dom.js";
import { PAGE_S, hm } from "./words.js";

const LETTERS = { delta: "δ", theta: "θ", alpha: "α", sigma: "σ", beta: "β" };
/** Viridis: even in lightness, and so for every kind of colour vision. */
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const STEP = 5;

/** Reads a message of the broker; null where it is of another night than is shown. */
export function readSpectrum(message, night) {
  if (!message || !night || message.session !== night.session || message.pages === 0) return null;
  const levels = bytes(message.levels);
  const bands = bytes(message.bands);
  const names = Object.keys(message.bands_hz);
  const decibel = (level) => (level === 0 ? null : message.floor_db + message.step_db * (level - 1));
  const [low, high] = limits(levels, decibel);
  return {
    ...message, low, high, names, decibel,
    image: paint(levels, message, (level) => (decibel(level) - low) / (high - low)),
    lines: names.map((_, band) => Array.from({ length: message.pages }, (_, page) => decibel(bands[page * names.length + band]))),
  };
}

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** From where to where the colours go: nearly all there is, in steps of 5 dB. */
function limits(levels, decibel) {
  const count = new Array(256).fill(0);
  for (const level of levels) count[level] += 1;
  const known = levels.length - count[0];
  const at = (share) => {
    let seen = 0;
    for (let level = 1; level < 256; level += 1) if ((seen += count[level]) >= share * known) return decibel(level);
    return decibel(255);
  };
  if (!known) return [0, STEP];
  const low = STEP * Math.floor(at(0.03) / STEP);
  return [low, Math.max(low + STEP, STEP * Math.ceil(at(0.99) / STEP))];
}

function paint(levels, { pages, bins }, share) {
  const colours = VIRIDIS.map((hex) => [1, 3, 5].map((from) => parseInt(hex.slice(from, from + 2), 16)));
  const canvas = Object.assign(document.createElement("canvas"), { width: pages, height: bins });
  const ink = canvas.getContext("2d");
  const image = ink.createImageData(pages, bins);
  levels.forEach((level, place) => {
    if (level === 0) return;
    const page = Math.floor(place / bins);
    const row = bins - 1 - (place % bins);
    const on = Math.min(1, Math.max(0, share(level))) * (colours.length - 1);
    const [from, to] = [colours[Math.floor(on)], colours[Math.ceil(on)]];
    const pixel = 4 * (row * pages + page);
    for (let part = 0; part < 3; part += 1) image.data[pixel + part] = from[part] + (to[part] - from[part]) * (on % 1);
    image.data[pixel + 3] = 255;
  });
  ink.putImageData(image, 0, 0);
  return canvas;
}

/** Draws the spectrogram into a chart; `x` gives the place of an epoch. */
export function drawSpectrogram(plot, seen, x) {
  const [left, right] = [x(seen.first), x(seen.first + seen.pages)];
  const y = (hertz) => plot.valToPos(hertz, "y", true);
  const [top, bottom] = [y(seen.lowest_hz + (seen.bins - 0.5) * seen.step_hz), y(seen.lowest_hz - seen.step_hz / 2)];
  plot.ctx.imageSmoothingEnabled = false;
  plot.ctx.drawImage(seen.image, left, top, right - left, bottom - top);
}

/** Says what the colours and the lines mean. */
export function spectrumLegend(seen) {
  const words = seen.derivations.map((one) => one.derivation).filter((name, place, all) => all.indexOf(name) === place);
  say(by("spectra-title"), `Spectrum of ${words.join(", ")}`);
  say(by("scale-low"), `${minus(seen.low)} dB`);
  say(by("scale-high"), `${minus(seen.high)} dB (0 dB: 1 µV²/Hz)`);
  by("viridis").style.background = `linear-gradient(to right, ${VIRIDIS.join(", ")})`;
  const list = by("band-legend");
  if (list.children.length !== seen.names.length + 1) {
    list.replaceChildren(el("li", {}, "µV² of"), ...seen.names.map((name) => {
      const line = el("span", { class: "line", "aria-hidden": "true" });
      line.style.background = `var(--${name})`;
      return el("li", {}, line, `${LETTERS[name] ?? name} ${seen.bands_hz[name].join("–")} Hz`);
    }));
  }
  const top = seen.lowest_hz + (seen.bins - 1) * seen.step_hz;
  mark(by("spectrogram"), "aria-label", `Spectrogram of ${words.join(", ")}, ${seen.lowest_hz} to ${top} Hz, ${seen.pages} pages. Values of the chosen page are below.`);
  mark(by("bands"), "aria-label", `Power in µV² of ${seen.names.join(", ")}, ${seen.pages} pages. Values of the chosen page are below.`);
}

/** The values of one page in words. */
export function spectrumWords(seen, epoch) {
  const page = epoch === null ? -1 : epoch - seen.first;
  const at = epoch === null ? "" : `${hm(new Date(Date.parse(seen.start) + epoch * PAGE_S * 1000))} · `;
  const values = page < 0 || page >= seen.pages ? [] : seen.names.map((name, band) => [name, seen.lines[band][page]]);
  if (!values.some(([, value]) => value !== null)) return `${at}no spectrum of this page`;
  const power = values.map(([name, value]) => `${LETTERS[name] ?? name} ${value === null ? "–" : rounded(10 ** (value / 10))}`);
  const name = seen.derivations.findLast((one) => one.epoch <= epoch)?.derivation ?? "";
  return `${at}${name} · ${power.join(" · ")} µV²`;
}

const minus = (value) => String(value).replace("-", "−");
const rounded = (value) => Number(value.toPrecision(2)).toString();
