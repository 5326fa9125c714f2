// The small hypnogram of a card: the last 30 minutes, a bar per run, hatching where withheld.

import { el, svg, mark, say } from "./dom.js";
import { LEVELS, STAGES, PAGE_S, hm } from "./words.js";

const PAGES = 60;

export function recentBox() {
  const picture = svg("svg", { class: "recent", viewBox: `0 0 ${PAGES} 50`, preserveAspectRatio: "none", role: "img" });
  const from = el("span");
  const to = el("span");
  const levels = el("div", { class: "levels", "aria-hidden": "true" }, ...LEVELS.map((stage) => el("span", {}, stage)));
  const node = el("div", { class: "recent-box" }, levels, el("div", { class: "plot" }, picture), el("div", { class: "ends", "aria-hidden": "true" }, from, to));
  let drawn = "";

  function show(card) {
    const key = card.recent.map((point) => point.stage ?? point.status).join() + card.recent_end;
    if (key === drawn) return;
    drawn = key;
    picture.replaceChildren(...rules(), ...steps(card.recent), ...bars(card.recent));
    mark(picture, "aria-label", spoken(card));
    const end = card.recent_end ? Date.parse(card.recent_end) : null;
    say(from, end ? hm(new Date(end - PAGES * PAGE_S * 1000)) : "");
    say(to, end ? hm(new Date(end)) : "");
  }
  return { node, show };
}

function rules() {
  return LEVELS.map((_, level) =>
    svg("line", { class: "rule", x1: 0, x2: PAGES, y1: 10 * level + 5, y2: 10 * level + 5 }));
}

/** Runs of equal pages: [first place, length, stage or null, status]. */
function runs(recent) {
  const found = [];
  const shift = PAGES - recent.length;
  recent.forEach((point, place) => {
    const last = found.at(-1);
    if (last && last.stage === point.stage && (last.status === "w") === (point.status === "w")) last.length += 1;
    else found.push({ first: place + shift, length: 1, stage: point.stage, status: point.status });
  });
  return found;
}

function bars(recent) {
  return runs(recent).flatMap((run) => {
    if (run.stage) {
      const y = 10 * LEVELS.indexOf(run.stage) + 2;
      return [svg("rect", { class: `fill-${run.stage}`, x: run.first, y, width: run.length, height: 6 })];
    }
    if (run.status === "w") {
      return [
        svg("rect", { class: "gap-ground", x: run.first, y: 0, width: run.length, height: 50 }),
        ...Array.from({ length: run.length }, (_, place) =>
          svg("line", { class: "gap-line", x1: run.first + place, x2: run.first + place + 1, y1: 50, y2: 0 })),
      ];
    }
    return [];
  });
}

function steps(recent) {
  const found = runs(recent);
  return found.slice(1).flatMap((run, place) => {
    const before = found[place];
    if (!run.stage || !before.stage) return [];
    const y1 = 10 * LEVELS.indexOf(before.stage) + 5;
    const y2 = 10 * LEVELS.indexOf(run.stage) + 5;
    return [svg("line", { class: "step", x1: run.first, x2: run.first, y1, y2 })];
  });
}

function spoken(card) {
  const parts = STAGES
    .map((stage) => [stage, card.recent.filter((point) => point.stage === stage).length])
    .filter(([, pages]) => pages)
    .map(([stage, pages]) => `${stage} ${pages / 2} min`);
  const gaps = card.recent.filter((point) => point.status === "w").length;
  if (gaps) parts.push(`withheld ${gaps / 2} min`);
  return `Last 30 minutes: ${parts.join(", ") || "nothing yet"}`;
}
