// What packs beside say of the night: a second hypnogram under the first, and how far they agree.

import { el } from "./dom.js";
import { LEVELS, PAGE_S, STAGE_WORDS, hm } from "./words.js";

const SHORTEST = 3600 / PAGE_S;
const ROW = 7;
const NS = "http://www.w3.org/2000/svg";

/** Draws the opinion of each pack beside; `choose(epoch)` is called where somebody clicked. */
export function showBeside(node, night, message, choose) {
  const packs = message && message.session === night.session ? message.packs : [];
  const key = JSON.stringify([night.start, night.epochs, packs.map((pack) => [pack.digest, pack.stages.length, pack.parted.length, pack.shed])]);
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  node.replaceChildren(...packs.map((pack) => one(pack, night, choose)));
}

function one(pack, night, choose) {
  const epochs = Math.max(night.epochs, SHORTEST);
  const chart = svg("svg", { viewBox: `0 0 ${epochs} ${ROW * LEVELS.length + 4}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  pack.stages.forEach((stage, epoch) => {
    if (stage) chart.append(svg("rect", { x: epoch, y: ROW * LEVELS.indexOf(stage) + 1, width: 1.02, height: ROW - 2, class: `fill-${stage}` }));
  });
  for (const epoch of pack.parted) chart.append(svg("rect", { x: epoch, y: ROW * LEVELS.length, width: 1.02, height: 4, class: "parts" }));
  chart.addEventListener("click", (event) => {
    const box = chart.getBoundingClientRect();
    const epoch = Math.floor((epochs * (event.clientX - box.left)) / box.width);
    if (epoch >= 0 && epoch < night.epochs) choose(epoch);
  });
  return el("figure", { class: "beside", "data-parts": String(pack.review) }, chart, el("figcaption", {}, words(pack, night)));
}

function words(pack, night) {
  const at = (epoch) => hm(new Date(Date.parse(night.start) + epoch * PAGE_S * 1000));
  const newest = pack.epoch === null ? "" : ` · ${at(pack.epoch)} ${pack.stage ? STAGE_WORDS[pack.stage] : "no stage"}${pack.review ? ", parts" : ""}`;
  const kappa = pack.kappa === null ? "" : `, κ ${pack.kappa.toFixed(2)}`;
  const shed = pack.shed ? ` · ${pack.shed} pages left out` : "";
  // The demo's simulator has no digest: what it played is no opinion of a model.
  const who = pack.digest ? `Second opinion: ${pack.pack}` : `Played by the ${pack.pack}`;
  return `${who}${newest} · ${pack.compared} pages compared, ${pack.parted.length} part${kappa}${shed}`;
}

function svg(name, attributes) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
