// One bed on the ward page, changed in place so that a whole night costs no memory.

import { el, mark, say } from "./dom.js";
import { recentBox } from "./recent.js";
import { bedName, gearWords, hm, lasting, metWords, percent, STAGE_WORDS } from "./words.js";

const OLD_S = 90;
const UNREAL = { simulated: "SIMULATED", replay: "REPLAY" };

/** `retire` is called with the bed where somebody asks to take it off the screens. */
export function makeCard(bed, retire) {
  const parts = {
    banner: el("p", { class: "banner" }),
    subject: el("span", { class: "subject" }),
    tags: el("span", { class: "tags" }),
    letter: el("span", { class: "letter" }),
    first: el("span", { class: "first" }),
    second: el("span", { class: "second" }),
    sure: el("span", { class: "sure" }),
    healthWords: el("span", { class: "words" }),
    latency: el("span", { class: "latency" }),
    leads: el("ul", { class: "leads", "aria-label": "Electrodes" }),
    met: el("p", { class: "met" }),
    problem: el("p", { class: "problem" }),
    judged: el("p", { class: "judged" }),
    recent: recentBox(),
    retire: el("button", { type: "button", class: "retire", hidden: true, onclick: () => retire(bed) }, "Retire …"),
  };
  const health = el("p", { class: "health" }, el("span", { class: "shape", "aria-hidden": "true" }), parts.healthWords, parts.latency);
  const node = el("article", { class: "card" },
    parts.banner,
    el("div", { class: "head" }, el("h2", {}, el("a", { href: `/bed/${encodeURIComponent(bed)}` }, bedName(bed))), parts.subject, parts.tags),
    el("div", { class: "now" }, parts.letter, el("div", { class: "words" }, parts.first, parts.second, parts.sure)),
    parts.recent.node, parts.met, parts.problem, parts.judged, health, parts.leads, parts.retire);
  let card = null;
  let old = false;

  function show(next, now) {
    card = next;
    mark(node, "data-mood", card.mood);
    say(parts.subject, card.subject ?? "");
    tags(parts.tags, card);
    headline(parts, card);
    sure(parts.sure, card);
    parts.recent.show(card);
    mark(health, "data-level", card.health);
    say(parts.healthWords, card.health_words);
    health.hidden = card.mood === "ended";
    const working = card.mood === "staged" || card.mood === "withheld";
    say(parts.latency, !working || card.latency_ms === null ? "" : `${(card.latency_ms / 1000).toFixed(1)} s latency`);
    leads(parts.leads, card.electrodes);
    say(parts.met, metWords(card));
    parts.met.hidden = !card.notice;
    say(parts.problem, card.problems[0] ?? "");
    parts.problem.hidden = card.problems.length === 0;
    say(parts.judged, card.judged ?? "");
    mark(parts.judged, "title", card.judged);
    parts.judged.hidden = card.judged === null;
    age(now);
  }

  function age(now) {
    if (!card) return;
    const silent = now / 1000 - card.seen;
    const away = card.node_available === false && card.mood !== "ended";
    old = away || (silent > OLD_S && card.mood !== "ended");
    node.classList.toggle("old", old);
    parts.retire.hidden = card.node_available !== false && silent <= OLD_S;
    if (away) {
      say(parts.second, `its daemon (${card.node}) is offline`);
      parts.second.classList.add("age");
    } else if (old) {
      say(parts.second, `no news for ${lasting(silent)}`);
      parts.second.classList.add("age");
    } else parts.second.classList.remove("age");
  }

  return { node, show, age, get card() { return card; }, get old() { return old; } };
}

function headline(parts, card) {
  const ran = card.since ? `since ${hm(card.since)} · ${lasting(card.lasted_s)}` : "";
  const last = card.stage ? `last ${card.stage}, ${hm(card.recent_end)}` : "";
  const say3 = (banner, letter, first, second) => {
    say(parts.banner, banner);
    say(parts.letter, letter);
    say(parts.first, first);
    say(parts.second, second);
  };
  parts.letter.className = card.mood === "staged" || card.mood === "withheld" ? "letter" : "letter none";
  switch (card.mood) {
    case "staged":
      parts.letter.classList.add(`stage-${card.stage}`);
      say3("", card.stage, `since ${hm(card.since)}`, `for ${lasting(card.lasted_s)}`);
      break;
    case "withheld":
      say3("WITHHELD", "?", card.reason_words ?? "no stage", ran);
      break;
    case "stale":
      say3("SILENT", "–", "no signal", last);
      break;
    case "ended":
      say3("ENDED", "■", "night over", card.recent_end ? `at ${hm(card.recent_end)}` : "");
      break;
    case "warming_up":
      say3("", "·", "warming up", "");
      break;
    case "not_staging":
      say3("", "·", card.phase ?? "no session", "not staging");
      break;
    default:
      say3("", "·", "waiting", card.session ? "for the first page" : "for a session");
  }
  mark(parts.letter, "aria-label", card.mood === "staged" ? `Stage ${STAGE_WORDS[card.stage]}` : null);
  mark(parts.letter, "role", card.mood === "staged" ? "img" : null);
  mark(parts.letter, "aria-hidden", card.mood === "staged" ? null : "true");
}

function tags(box, card) {
  const words = [];
  if (UNREAL[card.source]) words.push(["unreal", UNREAL[card.source]]);
  for (const one of card.gear) if (one.kind === "position") words.push(["", gearWords(one)]);
  if (card.lights !== "unknown" && card.mood !== "ended") words.push(["", card.lights === "off" ? "☾ lights off" : "☀ lights on"]);
  const key = words.join("|");
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  box.replaceChildren(...words.map(([kind, text]) => el("span", { class: `tag ${kind}` }, text)));
}

function sure(box, card) {
  const shown = card.mood === "staged" && card.confidence !== null;
  const text = shown
    ? `${percent(card.confidence)} sure${card.provisional ? " · provisional" : ""}${card.review ? " · review" : ""}`
    : "";
  say(box, text);
}

function leads(list, electrodes) {
  const key = electrodes.map((lead) => `${lead.role}${lead.level}${lead.words}`).join();
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...electrodes.map((lead) =>
    el("li", { "data-level": lead.level, title: `${lead.derivation}: ${lead.words}` },
      el("span", { class: "shape", "aria-hidden": "true" }), el("span", {}, lead.role.split("-")[0]),
      el("span", { class: "unseen" }, lead.words))));
}
